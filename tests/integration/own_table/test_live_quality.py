"""Live quality over a mapped table: the sums are those of a slow reader, as the own table's are."""

import pyarrow as pa
import pytest

from recsys.events.fields import EVENT_SCHEMA
from recsys.storage.entities import event_rows
from tests.integration.test_live_quality import (
    NOW,
    by_hand,
    equal,
    made,
    measure,
    merge_and_erase,
    to_us,
)


@pytest.fixture(scope="session")
def events(live_shop):
    return made(live_shop)


@pytest.fixture(scope="session")
def wanted(live_shop, events):
    return by_hand(live_shop.bundle, live_shop.settings, events)


def rows_of(events):
    rows = [{name: getattr(event, name, None) for name in EVENT_SCHEMA.names} for event in events]
    return pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)


def index(clicks):
    quote = "`" if clicks.kind == "mysql" else '"'
    clicks.index()
    for name, columns in (("by_time", ["Wann"]), ("by_session", ["sid", "Wann"])):
        listed = ", ".join(f"{quote}{column}{quote}" for column in columns)
        clicks.run(f"CREATE INDEX {name} ON {quote}Click Log{quote} ({listed})")


@pytest.mark.parametrize("order", [{}, {"order_column": ""}], ids=["by order", "by time"])
def test_a_table_gives_what_a_slow_reader_finds(
    clicks, own, live_shop, publish, tmp_path, events, wanted, order
):
    index(clicks)
    clicks.fill(rows_of(events))
    merge_and_erase(own)
    settings = clicks.settings(tmp_path / "models", live_shop, **order)
    publish(live_shop, own, settings.registry.path)
    ((found,), said) = measure(settings, own)
    assert said == [] and equal(found, wanted)
    assert found.positions > 50 and found.live_hits > found.still_hits > 0


def test_a_table_beside_posts_counts_what_is_in_both_once(
    two_clicks, own, live_shop, publish, tmp_path, events, wanted
):
    index(two_clicks)
    two_clicks.fill(rows_of([event for at, event in enumerate(events) if at % 3]))
    with own.begin() as connection:
        posted = [event for at, event in enumerate(events) if at % 3 == 0 or at % 5 == 0]
        event_rows.insert_events(connection, posted, to_us(NOW))
    merge_and_erase(own)
    more = {"accept_posts": True, "event_id_column": "eid"}
    settings = two_clicks.settings(tmp_path / "models", live_shop, **more)
    publish(live_shop, own, settings.registry.path)
    ((found,), said) = measure(settings, own)
    assert said == [] and equal(found, wanted)
