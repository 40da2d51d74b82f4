"""Brokers for tests of streams: librdkafka's own, a redis-server and a nats-server, each started here."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import confluent_kafka
import nats
import pytest
import redis
from sqlalchemy import select

from recsys.config.sections import ConsumeSettings
from recsys.consume.consumer import Consumer
from recsys.consume.message_store import MessageStore
from recsys.consume.shares import Shares
from recsys.ingest.layouts import ReadOptions
from recsys.ingest.streams.addresses import parse_address
from recsys.ingest.streams.brokers import open_broker
from recsys.ingest.streams.message_rows import MessageParser
from recsys.storage.engine.database import Database
from recsys.storage.entities import stream_rows
from recsys.storage.schema.tables import events
from tests.conftest import unavailable

LEASE_SECONDS = 1.0
QUICK = ConsumeSettings(batch_seconds=0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `condition` gives once it is true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)
    return found


def listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Server:
    """A broker's process, which tests may stop and start again with what it has stored."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self.command, self.port = list(command), port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(self.command, **quiet)
        wait_for(lambda: listening(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def redis_server(folder: Path) -> Server:
    binary = shutil.which("redis-server") or unavailable("no redis-server is installed")
    port = free_port()
    persistent = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
    return Server(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *persistent],
        port,
    )


def nats_server(folder: Path) -> Server:
    binary = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
    binary = binary or unavailable("no nats-server is installed")
    port = free_port()
    return Server([binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)], port)


@dataclass
class Feed:
    """A way to send to a broker, and its address."""

    kind: str
    url: str
    send: Callable[..., None]  # send(topic, values), values being JSON-ready or bytes
    partitions: int
    server: Server | KafkaServer
    ready: Callable[[], bool] = lambda: True  # whether it takes messages, after a start


KAFKA_BROKER = """
import confluent_kafka, sys
owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
brokers = owner.list_topics(timeout=10).brokers.values()
print(",".join(f"{one.host}:{one.port}" for one in brokers), flush=True)
sys.stdin.read()
"""


class KafkaServer:
    """librdkafka's built-in broker, in a process of its own. It keeps nothing on disk, so it is away while it
    is frozen: connections stand, and nothing answers.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-c", KAFKA_BROKER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def start(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class KafkaFeed:
    """Topics have 4 partitions."""

    def __init__(self, url: str) -> None:
        self.producer = confluent_kafka.Producer(
            {"bootstrap.servers": url, "linger.ms": 2, "log_level": 0}
        )

    def send(self, topic: str, values: Sequence[Any], **_: Any) -> None:
        for number, value in enumerate(values):
            self.producer.produce(topic, encoded(value), partition=number % 4)
            self.producer.poll(0)
        assert self.producer.flush(20) == 0


class RedisFeed:
    def __init__(self, port: int, **options: Any) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis(host="127.0.0.1", port=port, **options)

    def send(self, topic: str, values: Sequence[Any], **_: Any) -> None:
        pipe = self.client.pipeline(transaction=False)
        for value in values:
            fields = value if isinstance(value, FlatEntry) else {"data": encoded(value)}
            pipe.xadd(topic, fields)
        pipe.execute()

    def ready(self) -> bool:
        """Whether what is stored has been loaded."""
        with suppress(redis.exceptions.RedisError):
            return bool(self.client.ping())
        return False


class FlatEntry(dict):
    """The fields of a Redis entry."""


class NatsFeed:
    """Publishes from an event loop in a thread of its own."""

    def __init__(self, port: int, **options: Any) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.client = self.run(nats.connect(self.url, max_reconnect_attempts=-1, **options))
        self.context = self.client.jetstream()
        self.made: set[str] = set()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def send(self, topic: str, values: Sequence[Any], ids: Sequence[str] = ()) -> None:
        self.run(self._send(topic, values, ids))

    async def _send(self, topic: str, values: Sequence[Any], ids: Sequence[str]) -> None:
        if topic not in self.made:
            self.made.add(topic)
            await self.context.add_stream(name=topic.replace(".", "_"), subjects=[topic])
        for at in range(0, len(values), 200):
            await asyncio.gather(
                *(
                    self.context.publish(
                        topic,
                        encoded(value),
                        headers={"Nats-Msg-Id": ids[at + n]} if ids else None,
                    )
                    for n, value in enumerate(values[at : at + 200])
                )
            )

    def ready(self) -> bool:
        """Whether it is connected again, and the streams are there."""
        with suppress(Exception):
            return self.client.is_connected and bool(self.run(self.context.streams_info()))
        return False

    def close(self) -> None:
        self.run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def encoded(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.fixture(scope="module")
def kafka_feed() -> Iterator[Feed]:
    server = KafkaServer()
    yield Feed("kafka", server.url, KafkaFeed(server.url).send, 4, server)
    server.close()


@pytest.fixture(scope="module")
def redis_feed(tmp_path_factory) -> Iterator[Feed]:
    server = redis_server(tmp_path_factory.mktemp("redis"))
    server.start()
    feed = RedisFeed(server.port)
    yield Feed("redis", feed.url, feed.send, 1, server, feed.ready)
    feed.client.close()
    server.stop()


@pytest.fixture(scope="module")
def nats_feed(tmp_path_factory) -> Iterator[Feed]:
    server = nats_server(tmp_path_factory.mktemp("nats"))
    server.start()
    feed = NatsFeed(server.port)
    yield Feed("nats", feed.url, feed.send, 1, server, feed.ready)
    with suppress(Exception):
        feed.close()
    server.stop()


KINDS = ("kafka", "redis", "nats")
DATABASES = ("sqlite", "postgresql")
# Each kind of broker and each database, and both with one another.
each = pytest.mark.parametrize(
    ("database_url", "feed"),
    [("postgresql", "kafka"), ("sqlite", "redis"), ("sqlite", "nats")],
    indirect=True,
)
every = pytest.mark.parametrize(
    ("database_url", "feed"), list(product(DATABASES, KINDS)), indirect=True
)
either = pytest.mark.parametrize("database_url", DATABASES, indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(params=KINDS)
def feed(request) -> Feed:
    return request.getfixturevalue(f"{request.param}_feed")


@dataclass
class Running:
    """Consumers in threads of this process."""

    database: Database
    stops: list[threading.Event] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)

    def start(
        self,
        feed: Feed,
        *topics: str,
        options: ReadOptions | None = None,
        first: str = "earliest",
        name: str = "broker",
        lease: float = LEASE_SECONDS,
        settings: ConsumeSettings = QUICK,
    ) -> Consumer:
        broker = open_broker(parse_address(feed.kind, feed.url, settings), topics)
        shares = Shares(self.database, name, topics, lease, time.monotonic)
        store = MessageStore(self.database, MessageParser(options))
        consumer = Consumer(self.database, broker, shares, store, first, 1_000, 0.05)
        stop = threading.Event()
        thread = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
        thread.start()
        self.stops.append(stop)
        self.threads.append(thread)
        self.consumers.append(consumer)
        return consumer

    def stop(self, *consumers: Consumer) -> None:
        chosen = [n for n, one in enumerate(self.consumers) if not consumers or one in consumers]
        for n in chosen:
            self.stops[n].set()
        for n in chosen:
            self.threads[n].join(20)
            assert not self.threads[n].is_alive()

    def partitions(self) -> list[stream_rows.PartitionRow]:
        with self.database.connect() as connection:
            return stream_rows.list_partitions(connection)

    def total(self, count: str) -> int:
        return sum(getattr(row, count) for row in self.partitions())

    def stored(self) -> list[Any]:
        with self.database.connect() as connection:
            return list(connection.execute(select(events).order_by(events.c.id)))


@contextmanager
def consumers(database: Database) -> Iterator[Running]:
    running = Running(database)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def running(database) -> Iterator[Running]:
    with consumers(database) as found:
        yield found
