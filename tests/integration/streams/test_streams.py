"""What a stream brings is stored once, with its positions, from every kind of broker; on both databases."""

import uuid

import pytest

from recsys.ingest.layouts import ColumnMap, ReadOptions
from recsys.storage.entities import rejected_rows
from tests.integration.streams.conftest import FlatEntry, each, every, on_sqlite, wait_for

TIME = 1_700_000_000_000  # ms


@pytest.fixture
def topic():
    return f"clicks-{uuid.uuid4().hex[:8]}"


def clicks(number, start=0):
    return [
        {"user_id": f"u{n % 7}", "item_id": f"i{n}", "timestamp": TIME + n}
        for n in range(start, start + number)
    ]


@every
def test_events_are_stored_once_and_reading_goes_on_where_it_ended(running, feed, topic):
    feed.send(topic, clicks(300))
    first = running.start(feed, topic)
    wait_for(lambda: running.total("messages") == 300)
    running.stop(first)
    feed.send(topic, clicks(40, 300))
    running.start(feed, topic)
    wait_for(lambda: running.total("messages") == 340)
    rows = running.stored()
    assert sorted(int(row.item_id[1:]) for row in rows) == list(range(340))
    assert {row.timestamp_us for row in rows} == {1_000 * (TIME + n) for n in range(340)}
    partitions = running.partitions()
    assert len(partitions) == feed.partitions
    ids = {row.event_id for row in rows}
    assert len(ids) == 340
    assert all(one.startswith(f"{topic}:") and one.count(":") == 2 for one in ids)
    for row in partitions:
        assert row.read == row.messages == row.accepted
        assert row.duplicates == row.rejected == row.left_out == row.missed == 0
    wait_for(lambda: [row.lag for row in running.partitions()] == [0] * feed.partitions)


@each
def test_what_is_no_event_goes_to_quarantine_with_its_place(running, feed, topic, database):
    bad = [b"{", {"user_id": "u1"}, b"", [], 7, {"user_id": "u", "item_id": "i", "prise": 1}]
    bad += [b'{"user_id": "a", "user_id": "b", "item_id": "i"}', b"\xff\xfe"]
    feed.send(topic, [*clicks(4), *bad, [*clicks(2, 10), {"item_id": "x"}]])
    running.start(feed, topic)
    wait_for(lambda: running.total("messages") == 13)
    assert running.total("accepted") == 6
    assert running.total("rejected") == 9
    assert running.total("read") == 15
    with database.connect() as connection:
        rows = rejected_rows.list_rejected(connection)
    assert {row["source"].rpartition(":")[0] for row in rows} == {topic}
    reasons = "\n".join(row["reason"] for row in rows)
    for part in (
        *(
            "not JSON",
            "item_id = None",
            "the message is empty",
            "expected 1 to 10,000 events, not 0",
        ),
        *(
            "prise = 1: unknown field",
            "'user_id' stands twice",
            "event = 7: expected a JSON object",
        ),
        "user_id and session_id are both missing",
    ):
        assert part in reasons
    if feed.kind == "redis":
        assert reasons.count("(entry ") == 9
    else:
        positions = {(row["source"], row["position"]) for row in rows}
        assert all(position >= 0 for _, position in positions)


@each
def test_a_map_reads_other_shapes(running, feed, topic):
    orders = [
        {
            "who": {"id": 7},
            "kind": "order",
            "at": TIME // 1_000,
            "lines": [{"sku": "a", "cost": 2}, {"sku": "b", "cost": 3.5}],
        },
        {"who": {"id": 8}, "kind": "test", "at": TIME // 1_000, "lines": [{"sku": "c"}]},
        {"who": {"id": 9}, "kind": "order", "at": TIME // 1_000, "lines": []},
        {"who": {"id": 9}, "kind": "order", "at": TIME // 1_000, "lines": [{"sku": None}]},
    ]
    feed.send(topic, orders)
    columns = ColumnMap.parse(
        "user=who.id,item=lines[].sku,timestamp=at,event_type=kind,value=lines[].cost"
    )
    options = ReadOptions(columns, unit="s", where=("kind!=test",))
    running.start(feed, topic, options=options)
    wait_for(lambda: running.total("messages") == 4)
    rows = running.stored()
    assert [(row.user_id, row.item_id, row.event_type, row.value) for row in rows] == [
        ("7", "a", "order", 2.0),
        ("7", "b", "order", 3.5),
    ]
    assert [row.event_id.partition("#")[2] for row in rows] == ["0", "1"]
    assert running.total("read") == 5
    assert running.total("left_out") == 2
    assert running.total("rejected") == 1


@each
def test_without_a_time_the_message_gives_it(running, feed, topic, database):
    feed.send(topic, [{"user_id": "u", "item_id": "i"}])
    running.start(feed, topic)
    wait_for(lambda: running.total("messages") == 1)
    (row,) = running.stored()
    (partition,) = [one for one in running.partitions() if one.messages]
    assert row.timestamp_us // 1_000 == partition.last_message_at_us // 1_000
    assert 0 <= row.received_at_us - row.timestamp_us < 60_000_000
    running.stop()
    mapped = ReadOptions(ColumnMap.parse("user=user_id,item=item_id"))
    running.start(feed, topic, options=mapped, name="again")
    wait_for(lambda: running.total("messages") == 2)
    assert running.total("duplicates") == 1  # the same event, id and time


@each
def test_latest_begins_at_the_end_and_stays_there_over_a_restart(running, feed, topic):
    feed.send(topic, clicks(20))
    first = running.start(feed, topic, first="latest")
    wait_for(lambda: [one for one in running.partitions() if one.position is not None])
    wait_for(lambda: all(one.position for one in running.partitions()))
    running.stop(first)
    feed.send(topic, clicks(12, 100))
    running.start(feed, topic, first="latest")
    wait_for(lambda: running.total("messages") == 12)
    assert {int(row.item_id[1:]) for row in running.stored()} == set(range(100, 112))


@each
def test_events_of_erased_users_are_left_out(running, feed, topic, database):
    from recsys.storage.entities import erasure_rows

    with database.begin() as connection:
        erasure_rows.erase(connection, "u1", 1)
    feed.send(topic, [*clicks(7), b'{"user_id": "u1", "item_id": null}'])
    running.start(feed, topic)
    wait_for(lambda: running.total("messages") == 8)
    assert running.total("accepted") == 6
    assert running.total("left_out") == 2
    assert running.total("read") == 8
    with database.connect() as connection:
        assert rejected_rows.count_rejected(connection) == 0


@on_sqlite
def test_an_entry_of_fields_is_a_row(running, redis_feed, topic):
    fields = {"user_id": "7", "item_id": "tea", "timestamp": str(TIME), "value": "2.5"}
    redis_feed.send(topic, [FlatEntry(fields), FlatEntry({**fields, "properties": '{"a": 1}'})])
    running.start(redis_feed, topic)
    wait_for(lambda: running.total("messages") == 2)
    rows = running.stored()
    assert [(row.user_id, row.item_id, row.value, row.properties) for row in rows] == [
        ("7", "tea", 2.5, None),
        ("7", "tea", 2.5, '{"a":1}'),
    ]
    assert rows[0].timestamp_us == TIME * 1_000


@on_sqlite
def test_a_senders_message_id_is_the_events(running, nats_feed, topic):
    sent = clicks(2)
    nats_feed.send(topic, sent, ids=["m-1", "m-2"])
    nats_feed.send(topic, [[clicks(1, 5)[0], clicks(1, 6)[0]]], ids=["m-3"])
    running.start(nats_feed, topic)
    wait_for(lambda: running.total("messages") == 3)
    assert [row.event_id for row in running.stored()] == ["m-1", "m-2", "m-3#0", "m-3#1"]


@each
def test_a_large_batch_of_lists_is_stored_in_parts(running, feed, topic, monkeypatch):
    from recsys.consume import message_store

    monkeypatch.setattr(message_store, "MAX_BATCH_ROWS", 50)
    feed.send(topic, [clicks(30, 30 * n) for n in range(8)])
    running.start(feed, topic)
    wait_for(lambda: running.total("messages") == 8)
    assert len(running.stored()) == 240
    assert running.total("accepted") == running.total("read") == 240
