"""Several consumers share partitions; one that is gone, slow or robbed changes nothing that is stored."""

import threading
import time
import uuid

import pytest
from sqlalchemy import select, update

from recsys.consume.message_store import MessageStore
from recsys.consume.shares import Shares
from recsys.errors import LostLeaseError
from recsys.ingest.streams.broker import Message, Partition
from recsys.ingest.streams.message_rows import MessageParser
from recsys.storage.entities import stream_rows
from recsys.storage.entities.stream_rows import Move
from recsys.storage.schema.tables import events, stream_partitions
from tests.integration.streams.conftest import each, either, wait_for

NOW = 1_700_000_000_000_000
PARTITIONS = [Partition("clicks", number) for number in range(5)]


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def three(database):
    clocks = [Clock(100.0), Clock(5_000_000.0), Clock(7.0)]  # machines do not share a clock
    return [Shares(database, "s", ["clicks"], 9.0, clock) for clock in clocks], clocks


def held_by(database):
    with database.connect() as connection:
        rows = stream_rows.list_partitions(connection)
    return {row.key: row.consumer for row in rows}


def rounds(shares, clocks, seconds, look=(0, 1, 2)):
    """Let time pass, the consumers `look`ing every three seconds; what each holds at the end."""
    found = {}
    for _ in range(round(seconds / 3)):
        for clock in clocks:
            clock.now += 3.0
        for n in look:
            found[n] = shares[n].look(PARTITIONS, 1)
    return found


@either
def test_partitions_are_shared_evenly_and_taken_over_after_a_lease(three, database):
    shares, clocks = three
    assert set(shares[0].look(PARTITIONS, 1)) == set(PARTITIONS)
    held = rounds(shares, clocks, 9)
    assert sorted(len(one) for one in held.values()) == [1, 2, 2]
    assert set().union(*held.values()) == set(PARTITIONS)
    held = rounds(shares, clocks, 6, look=(0, 1))  # the third is silent, and not yet gone
    assert sum(len(one) for one in held.values()) < 5
    held = rounds(shares, clocks, 9, look=(0, 1))
    assert sorted(len(one) for one in held.values()) == [2, 3]
    assert set(held_by(database).values()) == {shares[0].consumer, shares[1].consumer}
    held = rounds(shares, clocks, 9)  # it was only slow
    assert sorted(len(one) for one in held.values()) == [1, 2, 2]
    shares[1].leave()
    held = rounds(shares, clocks, 6, look=(0, 2))
    assert sorted(len(one) for one in held.values()) == [2, 3]  # without waiting for a lease's end


@either
def test_consumers_of_different_topics_leave_each_other_theirs(database):
    clock = Clock(1.0)
    one = Shares(database, "s", ["a", "b"], 9.0, clock)
    other = Shares(database, "s", ["b"], 9.0, clock)
    for _ in range(3):
        first = one.look([Partition("a", 0), Partition("b", 0)], 1)
        second = other.look([Partition("b", 0)], 1)
        clock.now += 3
    assert set(first) == {Partition("a", 0)}
    assert set(second) == {Partition("b", 0)}


def message(offset, partition=PARTITIONS[0]):
    value = b'{"user_id": "u", "item_id": "i%d"}' % offset
    return Message(partition, str(offset), offset, value, str(offset + 1))


@either
def test_what_a_former_owner_still_writes_is_refused_whole(three, database):
    shares, clocks = three
    store = MessageStore(database, MessageParser())
    mine = shares[0].look(PARTITIONS, 1)
    mine = store.store([message(0), message(0, PARTITIONS[1])], mine, NOW)
    shares[1].look(PARTITIONS, 1)
    held = rounds(shares, clocks, 12, look=(1,))[1]
    assert len(held) == 5
    held = store.store([message(1)], held, NOW)
    # Of two partitions one is still as the former owner knows it but for its token.
    with pytest.raises(LostLeaseError):
        store.store([message(1), message(2), message(1, PARTITIONS[1])], mine, NOW)
    with database.connect() as connection:
        assert connection.execute(
            select(events.c.event_id).order_by(events.c.id)
        ).scalars().all() == [
            "clicks:0:0",
            "clicks:1:0",
            "clicks:0:1",
        ]
        row = stream_rows.list_partitions(connection)[0]
    assert (row.position, row.messages, row.accepted) == ("2", 2, 2)


@either
def test_a_batch_whose_outcome_was_not_heard_of_is_not_stored_again(three, database):
    shares, _ = three
    store = MessageStore(database, MessageParser())
    before = shares[0].look(PARTITIONS, 1)
    store.store([message(0)], before, NOW)
    with pytest.raises(LostLeaseError):
        store.store([message(0)], before, NOW)
    again = shares[0].look(PARTITIONS, 1)
    assert again[PARTITIONS[0]].position == "1"
    assert again[PARTITIONS[0]].messages == 1


@either
def test_two_that_store_the_same_at_once_store_it_once(three, database):
    shares, _ = three
    held = shares[0].look(PARTITIONS, 1)
    outcomes = []
    start = threading.Barrier(2)

    def work():
        store = MessageStore(database, MessageParser())
        start.wait()
        try:
            outcomes.append(store.store([message(n) for n in range(50)], held, NOW) and "stored")
        except LostLeaseError:
            outcomes.append("refused")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(outcomes) == ["refused", "stored"]
    with database.connect() as connection:
        assert len(connection.execute(select(events.c.id)).all()) == 50
        assert stream_rows.list_partitions(connection)[0].messages == 50


@either
def test_a_position_moves_only_from_where_it_is_known_to_be(database, three):
    shares, _ = three
    row = shares[0].look(PARTITIONS, 1)[PARTITIONS[0]]
    with database.begin() as connection:
        stream_rows.advance(connection, [Move(row, "5")], 2)
    with database.begin() as connection, pytest.raises(LostLeaseError, match="clicks:0"):
        stream_rows.advance(connection, [Move(row, "6")], 3)
    with database.connect() as connection:
        assert stream_rows.list_partitions(connection)[0].position == "5"


@each
def test_consumers_come_and_go_and_nothing_is_lost_or_stored_twice(running, feed):
    topics = [f"t{n}-{uuid.uuid4().hex[:6]}" for n in range(2)]
    sent, stop = [0], threading.Event()

    def produce():
        while not stop.is_set():
            for topic in topics:
                rows = [
                    {"user_id": f"u{n % 5}", "item_id": f"{topic}-{n}"}
                    for n in range(sent[0], sent[0] + 10)
                ]
                feed.send(topic, rows)
            sent[0] += 10
            time.sleep(0.01)

    producer = threading.Thread(target=produce)
    producer.start()
    first = running.start(feed, *topics)
    wait_for(lambda: running.total("messages") > 20)
    second = running.start(feed, *topics)
    wait_for(lambda: len({row.consumer for row in running.partitions()} - {None}) == 2)
    running.stop(first)
    wait_for(lambda: {row.consumer for row in running.partitions()} == {second.shares.consumer})
    stop.set()
    producer.join()
    wait_for(lambda: running.total("messages") == 2 * sent[0])
    items = [row.item_id for row in running.stored()]
    assert len(items) == len(set(items)) == 2 * sent[0]
    assert running.total("accepted") == 2 * sent[0]
    assert running.total("duplicates") == 0


@either
def test_a_robbed_consumer_gives_way(running, redis_feed, database):
    topic = f"t-{uuid.uuid4().hex[:6]}"
    redis_feed.send(topic, [{"user_id": "u", "item_id": "before"}])
    running.start(redis_feed, topic, lease=3.0)
    wait_for(lambda: running.total("messages") == 1)
    with database.begin() as connection:
        stream_rows.join(connection, "broker", " another", [topic], 1)  # the first by name
        taken = stream_partitions.c.token + 1
        connection.execute(update(stream_partitions).values(token=taken, consumer=" another"))
    redis_feed.send(topic, [{"user_id": "u", "item_id": "after"}] * 3)
    time.sleep(1.2)
    assert [row.item_id for row in running.stored()] == ["before"]
    wait_for(lambda: running.total("messages") == 4)  # the other gave no sign of life
    assert len(running.stored()) == 4
    assert running.total("accepted") == 4
