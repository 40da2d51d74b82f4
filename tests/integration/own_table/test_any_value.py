"""Whatever a column can hold is a value to judge: in bulk, at request time and in every count alike.

Each pool pairs what is written in SQL with what it means, so that the oracle reads no value itself.
"""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies
from sqlalchemy import create_engine, text

from recsys.config import Settings
from recsys.events.identity import Owner
from recsys.storage.entities.event_rows import PopularityQuery
from recsys.storage.external.external_database import parse_source_url
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.external.external_rows import Tally

BAD = object()  # the row is left out for it
DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)
PAST = [NOW - DAY * n for n in (1, 2, 2, 3, 20)]
AHEAD = NOW + DAY * 30


def us(moment):
    return round(moment.timestamp() * 1_000_000)


def times(form, *others):
    """Pool of times: those of the past, one ahead of the clock, and others as they are written."""
    fine = [(form(moment), us(moment)) for moment in PAST]
    return [*fine, (form(AHEAD), BAD), ("NULL", BAD), *others]


def zoned(moment):
    return f"'{moment:%Y-%m-%d %H:%M:%S}+00'"


def local(moment):
    return f"'{moment:%Y-%m-%d %H:%M:%S}'"


def seconds(moment):
    return str(int(moment.timestamp()))


def day(moment):
    return f"'{moment:%Y-%m-%d}'"


def midnight(moment):
    return moment.replace(hour=0, minute=0, second=0)


TEXT_IDS = [
    ("'u1'", "u1"),
    ("'u1'", "u1"),
    ("'U1'", "U1"),
    ("'ü/%_é'", "ü/%_é"),
    ("''", None),
    ("NULL", None),
    ("'NULL'", None),
    ("'" + "x" * 257 + "'", BAD),
    ("'a\tb'", BAD),
]
# Of the last an index is not asked for.
PADDED = [("' u1'", "u1"), ("'u1 '", "u1"), ("'1.0'", "1"), ("' u1 '", "u1"), ("'   u1'", BAD)]
TYPES = [
    ("'view'", "view"),
    ("'view'", "view"),
    ("'purchase'", "purchase"),
    ("'Purchase'", "Purchase"),
    ("' purchase '", "purchase"),
    ("'nan'", "view"),
    ("''", "view"),
    ("NULL", "view"),
    ("'" + "y" * 65 + "'", BAD),
]
INTEGERS = [("1", "1"), ("1", "1"), ("-7", "-7"), ("NULL", None), ("9007199254740993",) * 2]
ONE = "0f0e0d0c-0000-4000-8000-00000000000a"
FLOATS = [("1.5", 1.5), ("0", 0.0), ("NULL", None)]
TIMESTAMPTZ = (
    "timestamptz",
    times(
        zoned,
        ("'infinity'", BAD),
        ("'-infinity'", BAD),
        ("'0044-03-15 BC'", BAD),
        ("'20000-01-01'", BAD),
        ("'1969-12-31 23:59:59+00'", BAD),
    ),
)
NUMERIC_IDS = [*INTEGERS, ("'NaN'", None), ("18446744073709551616",) * 2]
# dialect, name -> (type, pool) of user, session, item, type, time, value; more keys of [events]
TABLES = {
    "postgresql texts": {
        "user": ("text", [*TEXT_IDS, *PADDED]),
        "session": ("varchar(300)", TEXT_IDS),
        "item": ("text", TEXT_IDS),
        "type": ("text", TYPES),
        "time": TIMESTAMPTZ,
        "value": ("double precision", [*FLOATS, ("'NaN'", None), ("'infinity'", None)]),
    },
    "postgresql numbers": {
        "user": ("numeric(30, 0)", NUMERIC_IDS),
        "session": ("uuid", [(f"'{ONE.upper()}'", ONE), ("NULL", None)]),
        "item": ("bigint", INTEGERS),
        "type": ("text", TYPES),
        "time": (
            "date",
            [
                *[(day(moment), us(midnight(moment))) for moment in PAST],
                (day(AHEAD), BAD),
                ("'infinity'", BAD),
                ("'-infinity'", BAD),
                ("NULL", BAD),
            ],
        ),
        "value": ("numeric(10, 2)", FLOATS),
        "more": {"timezone": "UTC"},
    },
    "postgresql seconds": {
        "user": ("char(8)", [("'u1'", "u1"), ("'U1  '", "U1"), ("NULL", None)]),
        "session": ("int", INTEGERS[:4]),
        "item": ("citext", TEXT_IDS),
        "type": ("kind", [("'view'", "view"), ("'purchase'", "purchase"), ("NULL", "view")]),
        "time": ("double precision", times(seconds, ("'NaN'", BAD), ("'infinity'", BAD))),
        "value": ("real", FLOATS),
        "more": {"unit": "s"},
    },
    "mysql texts": {
        "user": ("varchar(300)", [*TEXT_IDS, *PADDED]),
        "session": ("varchar(300)", [*TEXT_IDS, *PADDED]),
        "item": ("varchar(300)", TEXT_IDS),
        "type": ("varchar(80)", TYPES),
        "time": (
            "datetime",
            times(local, ("'0000-00-00'", BAD), ("'2024-00-00'", BAD), ("'9999-12-31'", BAD)),
        ),
        "value": ("decimal(10, 2)", FLOATS),
        "more": {"timezone": "UTC"},
    },
    "mysql numbers": {
        "user": ("bigint unsigned", [*INTEGERS[:2], ("18446744073709551615",) * 2, ("NULL", None)]),
        "session": ("binary(16)", [(f"x'{ONE.replace('-', '')}'", ONE), ("NULL", None)]),
        "item": ("decimal(30, 0)", [*INTEGERS, ("18446744073709551616",) * 2]),
        "type": ("enum('view', 'purchase')", [("'view'", "view"), ("'purchase'", "purchase")]),
        "time": ("timestamp null", times(local, ("'0000-00-00'", BAD))),
        "value": ("double", FLOATS),
    },
    "sqlite texts": {
        "user": (
            "TEXT COLLATE NOCASE",
            [*TEXT_IDS, *PADDED, ("7", "7"), ("x'ff00'", BAD), ("x'75'", BAD)],
        ),
        "session": ("TEXT", [*TEXT_IDS, *PADDED, ("cast(x'c3' as text)", BAD)]),
        "item": ("TEXT COLLATE NOCASE", [*TEXT_IDS, ("7", "7"), ("cast(x'c3' as text)", BAD)]),
        "type": ("TEXT", TYPES),
        "time": (
            "TEXT",
            times(
                lambda moment: f"'{moment:%Y-%m-%dT%H:%M:%SZ}'",
                ("'soon'", BAD),
                ("''", BAD),
                ("x'00'", BAD),
            ),
        ),
        "value": ("REAL", [*FLOATS, ("9e999", None), ("'dear'", None)]),
    },
    "sqlite numbers": {
        "user": ("INTEGER", [*INTEGERS, ("'u1'", "u1"), ("' u1'", "u1"), ("x'75'", BAD)]),
        "session": ("", [*INTEGERS, ("'1'", "1"), ("'u1'", "u1")]),
        "item": ("", [*INTEGERS, ("'1'", "1"), ("'u1'", "u1"), ("x'75'", BAD)]),
        "type": ("TEXT", TYPES),
        "time": (
            "INTEGER",
            times(seconds, ("'soon'", BAD), ("x'00'", BAD), ("9e999", BAD), ("''", BAD)),
        ),
        "value": ("", [*FLOATS, ("'2.5'", 2.5), ("'dear'", None)]),
        "more": {"unit": "s", "timezone": ""},
    },
}
PARTS = ("user", "session", "item", "type", "time", "value")


def settings_of(url, table, order):
    keys = {f"{part}_column": f"the {part}" for part in ("user", "session", "item", "value")}
    keys |= {"event_type_column": "the type", "timestamp_column": "the time", "table": "rows"}
    keys |= {"order_column": "no"} if order else {}
    return Settings(events={**keys, **table.get("more", {}), "url": url})


def oracle(table, rows):
    """The events among rows, oldest first: (us, number, user, session, item, type, value)."""
    events = []
    for number, row in enumerate(rows, 1):
        meant = {part: table[part][1][at][1] for part, at in zip(PARTS, row, strict=True)}
        owned = meant["user"] is not None or meant["session"] is not None
        if BAD in meant.values() or meant["item"] is None or not owned:
            continue
        events.append((meant["time"], number, *(meant[p] for p in PARTS if p != "time")))
    return sorted(events)


def written(part, literal):
    return f"cast({literal} as {part})" if part == "citext" else literal


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """made(dialect): the address of a database of that kind, and of the service's own."""
    from recsys.storage.engine.database import Database
    from recsys.storage.schema import migrate
    from tests.integration.own_table.conftest import _database

    own = Database(f"sqlite:///{tmp_path_factory.mktemp('own')}/recsys.db")
    migrate.upgrade(own)
    open_, urls = [], {}

    def url_of(dialect):
        if dialect not in urls:
            made = _database(dialect, request, tmp_path_factory.mktemp("table"))
            urls[dialect] = made.__enter__()
            open_.append(made)
        return urls[dialect], own

    yield url_of
    for one in open_:
        one.__exit__(None, None, None)
    own.close()


def fill(url, table, rows, dialect):
    """The table `rows` anew, with these rows."""
    quote = "`" if dialect == "mysql" else '"'
    columns = ", ".join(f"{quote}the {part}{quote} {table[part][0]}" for part in PARTS)
    index = {"mysql": "the user`(50), `the time", "postgresql": 'the user", "the time'}
    indexed = index.get(dialect, 'the user", "the time')
    if dialect == "mysql" and "(" not in table["user"][0]:
        indexed = "the user`, `the time"
    if dialect == "mysql":
        indexed = indexed.replace("`(50)", "`")
    engine = create_engine(parse_source_url(url))
    with engine.begin() as connection:
        if dialect == "mysql":
            connection.execute(text("SET sql_mode = ''"))
        if dialect == "postgresql":
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS citext"))
            connection.execute(text("DROP TABLE IF EXISTS rows; DROP TYPE IF EXISTS kind"))
            connection.execute(text("CREATE TYPE kind AS ENUM ('view', 'purchase')"))
        quoted = f"{quote}rows{quote}"
        connection.execute(text(f"DROP TABLE IF EXISTS {quoted}"))
        charset = " CHARACTER SET utf8mb4" if dialect == "mysql" else ""
        connection.execute(
            text(f"CREATE TABLE {quoted} (no integer primary key, {columns}){charset}")
        )
        for name, column in enumerate((indexed, indexed.replace("user", "session"), "the time")):
            made = f"CREATE INDEX by_{name} ON {quoted} ({quote}{column}{quote})"
            connection.execute(text(made))
        for number, row in enumerate(rows, 1):
            values = [table[part][1][at][0] for part, at in zip(PARTS, row, strict=True)]
            values = ", ".join(values).replace(":", "\\:")
            connection.execute(text(f"INSERT INTO {quoted} VALUES ({number}, {values})"))
    engine.dispose()


def rows_of(table):
    one = strategies.tuples(*(strategies.integers(0, len(table[part][1]) - 1) for part in PARTS))
    return strategies.lists(one, min_size=10, max_size=30)


# Many of them, so that the kind of each column is known whatever else it holds.
FIRST = (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("name", TABLES)
def test_bulk_requests_and_counts_judge_a_row_alike(name, made):
    table, dialect = TABLES[name], name.split()[0]
    url, own = made(dialect)

    @settings(
        max_examples=6 if dialect == "sqlite" else 3,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # an example takes a table: looking for a smaller one is slow
        suppress_health_check=list(HealthCheck),
    )
    @given(rows=rows_of(table))
    def check(rows):
        rows = [FIRST] * 20 + rows
        fill(url, table, rows, dialect)
        source = ExternalEvents(settings_of(url, table, True), own)
        try:
            compare(source, own, rows, oracle(table, rows))
        finally:
            source.close()

    check()


def compare(source, own, rows, events):
    tally = Tally()
    batches = list(source.rows().batches(us(NOW), tally=tally))
    assert tally.read == len(rows) == tally.kept + sum(tally.dropped.values())
    names = ("timestamp_us", "position", "user_id", "session_id", "item_id", "event_type", "value")
    table = pa.Table.from_batches(batches)
    read = sorted(zip(*(table[one].to_pylist() for one in names), strict=True), key=lambda e: e[:2])
    read = [(*e[:6], None if e[6] is None or math.isnan(e[6]) else e[6]) for e in read]
    assert read == events
    with own.connect() as connection:
        for user in ({event[2] for event in events} - {None}) | {"u2", "1.0", "x" * 300}:
            mine = [event for event in events if event[2] == user]
            asked(source, connection, mine, user_id=user)
            summary = source.summary(connection, user)
            assert summary.events == len(mine)
            assert summary.first_event_us == (mine[0][0] if mine else None)
            assert summary.last_event_us == (mine[-1][0] if mine else None)
            paged(source, connection, user, mine)
        for session in {event[3] for event in events} - {None}:
            mine = [event for event in events if event[3] == session]
            asked(source, connection, mine, session_id=session)
        counted(source, connection, events)


def asked(source, connection, mine, **owner):
    for limit in (2, 60):
        for types in (None, ("purchase",)):
            found = source.history(connection, Owner(**owner), limit, types)
            wanted = [e for e in mine if types is None or e[5] in types]
            shown = [(e.timestamp_us, int(e.event_id), e.item_id) for e in found.events]
            assert shown == [(e[0], e[1], e[4]) for e in wanted[-limit:]], (owner, limit, types)
            assert not found.complete or len(wanted) <= limit
    seen = source.seen_items(connection, Owner(**owner), None)
    assert seen == {event[4] for event in mine}


def counted(source, connection, events):
    """Popular items are those of most owners, of every window and each limit."""
    middle = events[len(events) // 2][0] if events else 0
    for since, until in ((0, None), (0, middle), (middle, None), (middle + 1, us(NOW) + 1)):
        inside = [e for e in events if since <= e[0] and (until is None or e[0] < until)]
        owners = {(e[4], "u:" + e[2] if e[2] is not None else "s:" + e[3]) for e in inside}
        counts = Counter(item for item, _ in owners)
        most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        for limit in (2, 100):
            found = source.popular_items(connection, PopularityQuery(since, until, limit=limit))
            assert found == most[:limit], (since, until, limit)


def paged(source, connection, user, mine):
    before, found = None, []
    while True:
        page = source.user_events(connection, user, 15, before)
        found += [int(event.event_id) for event in page.events]
        before = page.next_before
        if before is None:
            break
    assert found == [event[1] for event in reversed(mine)]
