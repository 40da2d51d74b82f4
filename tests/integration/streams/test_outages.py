"""Broker or database away, messages deleted unread, a topic recreated: told, and gone on from by itself."""

import time
import uuid

import pytest

from recsys.errors import StorageUnavailableError
from recsys.storage.entities import stream_rows
from tests.integration.streams.conftest import (
    Feed,
    NatsFeed,
    RedisFeed,
    nats_server,
    on_sqlite,
    redis_server,
    wait_for,
)


def rows(number, start=0):
    return [{"user_id": "u", "item_id": f"i{n}"} for n in range(start, start + number)]


@pytest.fixture(params=["redis", "nats"])
def own_feed(request, tmp_path):
    """A broker of a test's own, which it may stop."""
    make = {"redis": redis_server, "nats": nats_server}[request.param]
    server = make(tmp_path / "broker")
    (tmp_path / "broker").mkdir()
    server.start()
    sender = {"redis": RedisFeed, "nats": NatsFeed}[request.param](server.port)
    yield Feed(request.param, sender.url, sender.send, 1, server), sender
    if request.param == "nats":
        sender.close()
    else:
        sender.client.close()
    server.stop()


def problems(database):
    with database.connect() as connection:
        return [one.problem for one in stream_rows.list_consumers(connection)]


@on_sqlite
def test_a_broker_that_was_away_is_read_on(running, own_feed, database):
    feed, _ = own_feed
    feed.send("clicks", rows(20))
    running.start(feed, "clicks")
    wait_for(lambda: running.total("messages") == 20)
    feed.server.stop()
    problem = wait_for(lambda: next(iter(problems(database)), None))
    assert "cannot be reached" in problem
    time.sleep(1.5)  # longer than the lease: the partition stays here
    assert [row.consumer for row in running.partitions()] == [running.consumers[0].shares.consumer]
    feed.server.start()
    feed.send("clicks", rows(20, 20))
    wait_for(lambda: running.total("messages") == 40)
    wait_for(lambda: problems(database) == [None])
    assert len(running.stored()) == 40


@on_sqlite
def test_a_consumer_waits_for_a_broker_that_is_not_there_yet(running, own_feed, database):
    feed, _ = own_feed
    feed.server.stop()
    running.start(feed, "clicks")
    wait_for(lambda: any(problems(database)))
    feed.server.start()
    feed.send("clicks", rows(3))
    wait_for(lambda: running.total("messages") == 3)


def test_a_database_that_was_away_is_gone_on_with(running, redis_feed, database, monkeypatch):
    topic = f"t-{uuid.uuid4().hex[:6]}"
    redis_feed.send(topic, rows(5))
    consumer = running.start(redis_feed, topic)
    wait_for(lambda: running.total("messages") == 5)

    def refuse(*_args, **_kwargs):
        raise StorageUnavailableError("the database is away")

    begin = consumer.database.begin
    monkeypatch.setattr(consumer.database, "begin", refuse)
    redis_feed.send(topic, rows(5, 5))
    time.sleep(1)
    assert running.total("messages") == 5
    monkeypatch.setattr(consumer.database, "begin", begin)
    wait_for(lambda: running.total("messages") == 10)
    assert len(running.stored()) == 10


@on_sqlite
def test_messages_that_were_deleted_unread_are_counted(running, own_feed):
    feed, sender = own_feed
    feed.send("clicks", rows(10))
    first = running.start(feed, "clicks")
    wait_for(lambda: running.total("messages") == 10)
    running.stop(first)
    feed.send("clicks", rows(30, 10))
    if feed.kind == "redis":
        sender.client.xtrim("clicks", maxlen=12, approximate=False)
    else:
        sender.run(sender.context.purge_stream("clicks", keep=12))
    running.start(feed, "clicks")
    wait_for(lambda: running.total("messages") == 22)
    assert running.total("missed") == 18
    assert {row.item_id for row in running.stored()} == {
        f"i{n}" for n in (*range(10), *range(28, 40))
    }


@on_sqlite
def test_a_topic_that_was_made_anew_is_not_read_from_the_middle(running, own_feed, database):
    feed, sender = own_feed
    feed.send("clicks", rows(10))
    first = running.start(feed, "clicks")
    wait_for(lambda: running.total("messages") == 10)
    running.stop(first)
    if feed.kind == "redis":
        sender.client.delete("clicks")
        sender.client.xadd("clicks", {"data": b"{}"}, id="5-0")
    else:
        sender.run(sender.context.delete_stream("clicks"))
        sender.made.clear()
        feed.send("clicks", rows(2, 50))
    running.start(feed, "clicks")
    problem = wait_for(lambda: next(iter(running.partitions())).problem)
    assert "recreated" in problem and "--name" in problem
    running.stop()
    running.start(feed, "clicks", name="anew")
    wait_for(
        lambda: [row.messages for row in running.partitions() if row.source == "anew"][0:1] > [0]
    )


@on_sqlite
def test_a_redis_stream_that_was_trimmed_away_goes_on_with_newer_entries(running, own_feed):
    feed, sender = own_feed
    if feed.kind != "redis":
        pytest.skip("of Redis alone")
    feed.send("clicks", rows(10))
    first = running.start(feed, "clicks")
    wait_for(lambda: running.total("messages") == 10)
    running.stop(first)
    sender.client.delete("clicks")
    feed.send("clicks", rows(4, 10))
    running.start(feed, "clicks")
    wait_for(lambda: running.total("messages") == 14)
    wait_for(lambda: [row.lag for row in running.partitions()] == [0])
    assert running.total("missed") == 0
