"""The dashboard over a table of the user's own: counts, visitors, time lines, items, data quality."""

import re
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys.config import Settings
from recsys.errors import InputError
from recsys.events.identity import Owner
from recsys.events.times import DAY_US, HOUR_US, from_us, to_us
from recsys.ops import diagnosis, upkeep
from recsys.storage.dashboard import activity_rows
from recsys.storage.dashboard.external_event_views import ExternalEventViews
from recsys.storage.dashboard.visitor_views import EventPosition, VisitorQuery
from recsys.storage.entities import item_rows
from recsys.storage.external.external_events import ExternalEvents


@pytest.fixture
def shop(clicks, own, tmp_path, tiny_shop, publish):
    """(settings, now) of a filled, indexed table."""
    clicks.fill(tiny_shop.events)
    clicks.index()
    publish(tiny_shop, own, tmp_path / "models")
    with own.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    now = from_us(pc.max(tiny_shop.events["timestamp_us"]).as_py()) + timedelta(hours=1)
    return clicks.settings(tmp_path / "models", tiny_shop), now


def counted(database):
    with database.connect() as connection:
        hours = activity_rows.events_by_hour(connection, 0, 2**62)
        return hours, activity_rows.users_by_day(connection, 0, 2**62)


def expected(events):
    times, types = events["timestamp_us"].to_pylist(), events["event_type"].to_pylist()
    hours = Counter((us - us % HOUR_US, kind) for us, kind in zip(times, types, strict=True))
    owners = zip(
        times, events["user_id"].to_pylist(), events["session_id"].to_pylist(), strict=True
    )
    days = {(us - us % DAY_US, user or session) for us, user, session in owners}
    return (
        [(hour, kind, number) for (hour, kind), number in sorted(hours.items())],
        sorted(Counter(day for day, _ in days).items()),
    )


def test_counts_are_those_of_the_rows_and_follow_new_ones(shop, clicks, own, tiny_shop):
    settings, now = shop
    events = tiny_shop.events.filter(pc.is_valid(tiny_shop.events["user_id"]))
    assert upkeep.count_activity(settings, own, now) > 5
    assert counted(own) == expected(events)
    last = events.take([events.num_rows - 1]).to_pylist()[0]
    more = pa.Table.from_pylist(
        [
            {**last, "timestamp_us": to_us(now) - 1_000_000, "event_id": f"more-{n}"}
            for n in range(3)
        ],
        events.schema,
    )
    clicks.fill(more, first=1_000_000)
    days = upkeep.count_activity(settings, own, now)
    assert 1 <= days <= 3  # not all of them
    assert counted(own) == expected(pa.concat_tables([events, more]))
    upkeep.count_activity(settings, own, now)
    assert counted(own) == expected(pa.concat_tables([events, more]))


def test_doctor_looks_at_the_mapping(shop, own):
    settings, now = shop

    def look(chosen):
        with own.connect() as connection:
            (found,) = diagnosis._own_table(chosen, own, connection, now)
        return found

    assert look(settings).state == "ok"
    wrong = settings.events.model_copy(update={"item_column": "selekt"})
    found = look(settings.model_copy(update={"events": wrong}))
    assert found.state == "fail" and "did you mean select" in found.found


def test_another_table_is_counted_from_nothing(shop, own, tiny_shop):
    settings, now = shop
    upkeep.count_activity(settings, own, now)
    views = settings.model_copy(
        update={"events": settings.events.model_copy(update={"where": "art = 'view'"})}
    )
    upkeep.count_activity(views, own, now)
    hours, _ = counted(own)
    assert {kind for _, kind, _ in hours} == {"view"}


def test_pages_show_the_rows_of_the_table(shop, own, tiny_shop, Service, add_account):
    settings, now = shop
    upkeep.count_activity(settings, own, now)
    looked_over = upkeep.report_quality(settings, own, now, lambda line: None)
    assert looked_over > 1_000
    service = Service(own, settings)
    with own.begin() as connection:
        add_account(connection, "viewer", "viewer")
    client = service.app.test_client()
    token = re.search(
        r'name="csrf_token" value="([^"]+)"', client.get("/admin/login").get_data(as_text=True)
    ).group(1)
    form = {"name": "viewer", "password": add_account.password, "csrf_token": token}
    client.post("/admin/login", data=form)

    def page(path, **query):
        answer = client.get(f"/admin/{path}", query_string=query)
        assert answer.status_code == 200, answer.get_data(as_text=True)[:500]
        return answer.get_data(as_text=True)

    users = [user for user in tiny_shop.events["user_id"].to_pylist() if user is not None]
    often, events = Counter(users).most_common(1)[0]
    newest = max(
        tiny_shop.events.to_pylist(), key=lambda row: (row["user_id"] == often, row["timestamp_us"])
    )
    listed = page("users")
    assert listed.count("shopper-") > 20
    assert often in page("users", q=often)
    shown = page("users/one", user_id=often)
    assert f">{events}<" in re.sub(r"\s", "", shown) or f"{events} events" in shown
    assert newest["item_id"] in shown
    assert (
        "visit" in page("users/one", user_id=often)
        and client.get("/admin/users/one?user_id=nobody-at-all").status_code == 404
    )
    item = Counter(tiny_shop.events["item_id"].to_pylist()).most_common(1)[0][0]
    assert 'data-chart="' in page("items/one", item_id=item)
    assert "not been analysed" not in page("data-quality", range="90d")
    service.app.extensions["recsys"].recommender.source.close()
    service.close()


def test_a_time_line_is_paged(shop, own, tiny_shop):
    settings, _ = shop
    often, events = Counter(filter(None, tiny_shop.events["user_id"].to_pylist())).most_common(1)[0]
    with closing(ExternalEvents(settings, own)) as source, own.connect() as connection:
        views, seen, before = ExternalEventViews(source), [], None
        while rows := views.time_line(connection, Owner(often), 7, before):
            seen += rows
            before = EventPosition(rows[-1].timestamp_us, rows[-1].id)
        whole = views.time_line(connection, Owner(often), 10_000)
        assert views.count_events(connection, Owner(often), 10_000) == events
        page = views.recent_visitors(connection, VisitorQuery(20, to_us(datetime.now(UTC))))
    assert [row.event_id for row in seen] == [row.event_id for row in whole]
    assert len(seen) == events
    last = [one.last_event_us for one in page.visitors]
    assert last == sorted(last, reverse=True) and len(last) == 20


def test_rows_in_any_order_are_counted_whole(shop, clicks, own, tiny_shop, tmp_path):
    settings, now = shop
    days = pa.table(
        {
            "user_id": [f"u{user:03d}" for user in range(60) for _ in range(10)],
            "session_id": pa.nulls(600, pa.string()),
            "item_id": ["i"] * 600,
            "event_type": ["view"] * 600,
            "timestamp_us": [to_us(now) - day * DAY_US for _ in range(60) for day in range(10)],
            "event_id": pa.nulls(600, pa.string()),
        }
    )
    clicks.fill(days, first=2_000_000)
    with closing(ExternalEvents(settings, own)) as source:
        # Days are closed after the only chunk.
        ExternalEventViews(source, max_held=10).count_activity(to_us(now))
    _, users = counted(own)
    assert [number >= 60 for _, number in users[-10:]] == [True] * 10


def test_a_table_that_was_emptied_and_filled_again_is_counted_anew(shop, clicks, own, tiny_shop):
    settings, now = shop
    upkeep.count_activity(settings, own, now)
    before = counted(own)
    clicks.run("DELETE FROM " + ("`Click Log`" if clicks.kind == "mysql" else '"Click Log"'))
    assert upkeep.count_activity(settings, own, now) == 0
    clicks.fill(tiny_shop.events.slice(0, 500))
    upkeep.count_activity(settings, own, now)
    hours, _ = counted(own)
    assert 0 < sum(number for *_, number in hours) <= 500 < sum(n for *_, n in before[0])
    own_only = settings.model_copy(update={"events": Settings().events})
    assert upkeep.count_activity(own_only, own, now) == 0
    assert counted(own) == ([], [])  # of its own table nothing is there


def test_pages_far_back_are_refused(shop, own, tiny_shop):
    settings, _ = shop
    far = EventPosition(1, 10**17)
    with (
        closing(ExternalEvents(settings, own)) as source,
        own.connect() as connection,
        pytest.raises(InputError, match="cursor"),
    ):
        ExternalEventViews(source).time_line(connection, Owner("shopper-000001"), 7, far)
