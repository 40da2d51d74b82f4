"""Every figure of a mapped table follows one rule: against a slow reader, over generated tables.

The oracle reads the rows as they were written; rows that are no events, and rows ahead of the clock, lie
among them and crowd the newest.
"""

import random
import time
from collections import Counter

import pytest

from recsys.events.fields import Event
from recsys.events.identity import Owner
from recsys.ingest.item_body import check_item
from recsys.storage.dashboard.event_views import open_event_views
from recsys.storage.dashboard.visitor_views import VisitorQuery
from recsys.storage.entities import erasure_rows, event_rows, item_rows, user_rows
from recsys.storage.entities.event_rows import PopularityQuery
from recsys.storage.events_source import open_events_source
from tests.integration.own_table.conftest import KINDS

NOW_US = time.time_ns() // 1_000_000 * 1_000
DAY_US = 86_400_000_000
TIME = {
    "sqlite": ":w",
    "postgresql": "to_timestamp(0) + :w * interval '1 microsecond'",
    "mysql": "'1970-01-01' + INTERVAL :w MICROSECOND",
}
BAD = {"art": "a\tb", "sid": "a\tb", "eid": "a\tb", "select": "a\tb", "Kunde": "a\tb"}


def made(seed, first=1, ids="e", bad=0.1):
    """Rows of a click table, oldest first: whole ones, and some that are no events for one cell."""
    chance = random.Random(seed)
    rows = []
    for number in range(first, first + 120):
        user = chance.choice([None, "", "NULL", "u1", " u1", "u2", "u3"])
        row = {
            "No": number,
            "Kunde": user,
            "select": chance.choice(["i1", " i1 ", "i2", "i3", "ü", "outside"]),
            "Wann": NOW_US - DAY_US * 3 + number * 1_000_000_000,
            "art": chance.choice(["view", "cart", "", None]),
            "sid": chance.choice(["s1", "s2", None]),
            "eid": f"{ids}{chance.randrange(40)}-{number % 3}",
        }
        if chance.random() < bad:
            name = chance.choice(sorted(BAD))
            row[name] = BAD[name]
        rows.append(row)
    for number in range(first + 120, first + 180):  # the newest, all ahead of the clock
        rows.append({**rows[0], "No": number, "Wann": NOW_US + DAY_US, "select": "ahead"})
    return rows


def meant(row):
    """The event of a row, or None."""
    if any(row[name] == BAD[name] for name in BAD) or row["Wann"] > NOW_US + 300_000_000:
        return None
    user, session = (
        row[n].strip() if row[n] not in (None, "", "NULL") else None for n in ("Kunde", "sid")
    )
    if user is None and session is None:
        return None
    return Event(
        user, session, row["select"].strip(), row["art"] or "view", row["Wann"], row["eid"]
    )


def by_time(event):
    return event.timestamp_us


def owner(event):
    return "u:" + event.user_id if event.user_id is not None else "s:" + event.session_id


def index(clicks):
    quote = "`" if clicks.kind == "mysql" else '"'
    clicks.index()
    clicks.run(f"CREATE INDEX by_time ON {quote}Click Log{quote} ({quote}Wann{quote})")
    clicks.run(
        f"CREATE INDEX by_session ON {quote}Click Log{quote} ({quote}sid{quote}, {quote}Wann{quote})"
    )


def fill(clicks, rows):
    """The table anew, with these rows."""
    quote = "`" if clicks.kind == "mysql" else '"'
    clicks.run(f"DELETE FROM {quote}Click Log{quote}")
    keys = ("No", "Kunde", "select", "Wann", "art", "sid", "eid")
    values = ", ".join(
        TIME[clicks.kind] if key == "Wann" else f":v{at}" for at, key in enumerate(keys)
    )
    given = [
        {"w" if k == "Wann" else f"v{at}": row[k] for at, k in enumerate(keys)} for row in rows
    ]
    clicks.run(f"INSERT INTO {quote}Click Log{quote} VALUES ({values})", rows=given)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_a_slow_reader(kind, click_tables, own, tmp_path):
    with click_tables(kind) as clicks:
        index(clicks)
        for seed in (1, 2) if kind == "sqlite" else (1,):
            rows = made(seed)
            fill(clicks, rows)
            events = [event for row in rows if (event := meant(row)) is not None]
            check(clicks, own, tmp_path, events, [], False)
            posted = [e for row in made(seed + 7, 500, bad=0) if (e := meant(row)) is not None]
            check(clicks, own, tmp_path, events, [*posted, *events[::5]], True)


def check(clicks, own, tmp_path, events, posted, beside):
    with own.begin() as connection:
        for table in ("events", "aliases", "tombstones", "items", "item_categories"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        posted = list({(owner(e), e.event_id): e for e in reversed(posted)}.values())
        event_rows.insert_events(connection, sorted(posted, key=by_time), NOW_US)
        user_rows.merge(connection, "u1", "u:u2", 1)
        user_rows.merge(connection, "u1", "s:s1", 1)
        described = [{"item_id": one, "title": one, "categories": ["tea"]} for one in ("i1", "i3")]
        item_rows.put_items(connection, [check_item(one) for one in described], 1)
    more = {"accept_posts": True} if beside else {}
    settings = clicks.settings(tmp_path / "models", event_id_column="eid", **more)
    source = open_events_source(settings, own)
    try:
        with own.connect() as connection:
            popular(source, connection, [*events, *posted])
            people(source, connection, events, posted, beside)
            newest(open_event_views(source, own), connection, events)
        with own.begin() as connection:
            erasure_rows.erase(connection, "u1", 1)
        with own.connect() as connection:
            gone = ("u:u1", "u:u2", "s:s1")  # merged, so erased together
            left = [event for event in [*events, *posted] if owner(event) not in gone]
            assert left
            popular(source, connection, left)
    finally:
        source.close()


def popular(source, connection, events):
    middle = NOW_US - DAY_US * 2
    for since, until, limit in ((0, None, 50), (middle, None, 3), (0, middle, 1)):
        inside = [e for e in events if since <= e.timestamp_us < (until or 2**62)]
        pairs = {(e.item_id, owner(e)) for e in inside}
        everything = Counter(item for item, _ in pairs)
        known = Counter(i for i, who in pairs if i in ("i1", "i3") or who.startswith("u:"))
        tea = Counter({item: n for item, n in everything.items() if item in ("i1", "i3")})
        for counts, category, known_only in (
            (everything, None, False),
            (known, None, True),
            (tea, "tea", False),
        ):
            most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
            found = source.popular_items(
                connection, PopularityQuery(since, until, category, limit, known_only)
            )
            assert found == most[:limit], (since, until, category, known_only)


def people(source, connection, events, posted, beside):
    views = open_event_views(source, source.database)
    keys = {"u1": ("u:u1", "u:u2", "s:s1"), "u3": ("u:u3",), "nobody": ("u:nobody",)}
    for user, owned in keys.items():
        mine = [e for e in events if owner(e) in owned]
        if beside:  # of an event in both the newer time counts
            both = sorted([*mine, *(e for e in posted if owner(e) in owned)], key=by_time)
            mine = list({(owner(e), e.event_id): e for e in both}.values())
        times = sorted((e.timestamp_us for e in mine), reverse=True)
        told = source.summary(connection, user)
        assert told.events == len(mine) == views.count_events(connection, Owner(user), 10_000)
        assert (told.last_event_us, told.first_event_us) == (
            (times[0], times[-1]) if times else (None, None)
        )
        before, paged = None, []
        while True:
            page = source.user_events(connection, user, 20, before)
            paged += page.events
            before = page.next_before
            if before is None:
                break
        assert [e.timestamp_us for e in paged] == times
        assert {(owner(e), e.item_id, e.timestamp_us) for e in paged} == {
            (owner(e), e.item_id, e.timestamp_us) for e in mine
        }
        line = views.time_line(connection, Owner(user), 10_000)
        assert [row.timestamp_us for row in line] == times
        for limit in (3, 500):
            history = source.history(connection, Owner(user), limit).events
            assert [e.timestamp_us for e in history] == times[:limit][::-1]


def newest(views, connection, events):
    page = views.recent_visitors(connection, VisitorQuery(100, NOW_US))
    last = {owner(e): (e.timestamp_us, e.item_id) for e in sorted(events, key=by_time)}
    assert {one.name: (one.last_event_us, one.last_item_id) for one in page.visitors} == {
        key[2:]: value for key, value in last.items()
    }
    steps = views.item_events(connection, "i1", DAY_US, now_us=NOW_US).steps
    assert sum(number for _, _, number in steps) == sum(e.item_id == "i1" for e in events)
    assert not views.item_events(connection, "ahead", DAY_US, now_us=NOW_US).steps
