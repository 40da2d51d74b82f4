"""Consumers are killed (SIGKILL) while they read, and the broker goes away: nothing is lost, nothing is twice.

`make drills` does it 50 times for each kind of broker and database, with the broker away for a minute.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from tests.integration.streams.conftest import each, every, wait_for

TOPICS = 4


class Producer:
    """Sends to all topics until it is stopped; what the broker has taken."""

    def __init__(self, feed, topics):
        self.feed, self.topics = feed, topics
        self.sent, self.stopping = 0, threading.Event()
        self.sending = threading.Lock()  # held while the broker is away, too
        self.error = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.wait(0.05):
            with self.sending:
                try:
                    self.send()
                except (
                    Exception
                ) as error:  # the drill fails by it, instead of going on with nobody sending
                    self.error = error
                    return

    def send(self):
        numbers = range(self.sent, self.sent + 25)
        for topic in self.topics:
            self.feed.send(
                topic, [{"user_id": f"u{n % 9}", "item_id": f"{topic}-{n}"} for n in numbers]
            )
        self.sent += 25

    def stop(self):
        self.stopping.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        assert self.error is None


def start(feed, database_url, topics, folder):
    environment = {
        **os.environ,
        "RECSYS_DATABASE__URL": database_url,
        "RECSYS_DATABASE__BUSY_TIMEOUT_SECONDS": "20",
        "RECSYS_CONSUME__LEASE_SECONDS": "1.5",
        "RECSYS_CONSUME__BATCH_SECONDS": "0.1",
    }
    command = [sys.executable, "-m", "recsys", "consume", feed.kind, feed.url, *topics]
    with open(folder / "consumers.log", "ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def holds(running, process):
    return any(f":{process.pid}:" in (row.consumer or "") for row in running.partitions())


def holds_all(running, process):
    return all(f":{process.pid}:" in (row.consumer or "") for row in running.partitions())


def drill(running, feed, url, folder, kills, outage_seconds):
    rng = random.Random(kills)
    topics = [f"k{n}-{rng.randrange(10**9)}" for n in range(TOPICS if feed.partitions == 1 else 1)]
    feed.send(topics[0], [{"user_id": "u", "item_id": f"{topics[0]}-first"}])
    for topic in topics[1:]:
        feed.send(topic, [{"user_id": "u", "item_id": f"{topic}-first"}])
    producer = Producer(feed, topics)
    processes = [start(feed, url, topics, folder) for _ in range(2)]
    started = time.monotonic()
    try:
        for number in range(kills):
            chosen = processes.pop(rng.randrange(2))
            wait_for(lambda one=chosen: holds(running, one), 180)
            time.sleep(rng.random())
            chosen.send_signal(signal.SIGKILL)
            chosen.wait()
            processes.append(start(feed, url, topics, folder))
            if number == kills // 2 and outage_seconds:
                with producer.sending:
                    feed.server.stop()
                    time.sleep(outage_seconds)
                    feed.server.start()
                    wait_for(feed.ready)
        ended = processes.pop(0)  # one ends by itself
        wait_for(lambda: holds(running, ended), 180)
        ended.terminate()
        assert ended.wait(60) == 0
        producer.stop()
        expected = TOPICS if feed.partitions == 1 else 1
        expected *= producer.sent + 1
        wait_for(lambda: running.total("messages") >= expected, 120)
        # What a killed one held is taken over once its lease has run out, messages or none.
        last = processes.pop()
        wait_for(lambda: holds_all(running, last), 180)
        last.terminate()
        assert last.wait(60) == 0
        assert {row.consumer for row in running.partitions()} == {None}
    finally:
        producer.stopping.set()
        for one in processes:
            one.terminate()
        for one in processes:
            with suppress(subprocess.TimeoutExpired):
                one.wait(60)
            one.kill()
            one.wait()
    seconds = time.monotonic() - started
    items = [row.item_id for row in running.stored()]
    wanted = {f"{topic}-{n}" for topic in topics for n in ("first", *range(producer.sent))}
    print(f"{feed.kind}: {kills} kills, {len(items):,} messages in {seconds:.0f} s")
    assert len(items) - len(set(items)) == 0, "stored twice"
    assert wanted - set(items) == set(), "lost"
    assert set(items) == wanted
    assert running.total("messages") == running.total("accepted") == len(wanted)
    assert running.total("duplicates") == running.total("missed") == 0


@each
def test_a_killed_consumer_loses_nothing(running, feed, database_url, tmp_path):
    drill(running, feed, database_url, tmp_path, 1, 0)


@every
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_fifty_kills_and_a_minute_without_the_broker(running, feed, database_url, tmp_path):
    drill(running, feed, database_url, tmp_path, 50, 60)
