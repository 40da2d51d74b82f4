"""Which partitions this consumer reads, without trust in clocks.

Each consumer adds a beat to its row at a third of a lease's life. One whose beats stand still for a whole
life, by the watcher's own monotonic clock, is gone, and its row is removed. Those that are left deal all
partitions out by one rule, so that they agree without asking each other: each lets go what falls to
another and takes what falls to itself once it is free. What a consumer that is only slow still wants to
write is refused by the partition's token (decision 0012 has the same for schedulers).
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from recsys.ingest.streams.broker import Partition
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import stream_rows
from recsys.storage.entities.stream_rows import ConsumerRow, PartitionRow

log = structlog.get_logger(__name__)


def deal(
    partitions: Collection[Partition], consumers: Mapping[str, Collection[str]]
) -> dict[Partition, str]:
    """Who reads what: each partition falls to whoever has least among those who read its topic.

    `consumers`: the topics of each. The same for everyone who knows the same.

    >>> shared = deal([Partition("t", n) for n in range(3)], {"a": ["t"], "b": ["t"]})
    >>> [shared[one] for one in sorted(shared)]
    ['a', 'b', 'a']
    """
    held = dict.fromkeys(sorted(consumers), 0)
    dealt: dict[Partition, str] = {}
    for one in sorted(partitions):
        able = [name for name in held if one.topic in consumers[name]]
        if able:
            dealt[one] = min(able, key=lambda name: (held[name], name))
            held[dealt[one]] += 1
    return dealt


class Shares:
    """This consumer among those of a source. Not for several threads."""

    def __init__(
        self,
        database: Database,
        source: str,
        topics: Sequence[str],
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """`seconds`: a lease's life; `clock` gives seconds that never go back."""
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.source, self.topics = source, tuple(topics)
        self.lease_seconds = seconds
        self._database, self._clock = database, clock
        self._due = float("-inf")
        self._seen: dict[
            str, tuple[int, float]
        ] = {}  # consumer -> beats, and since when they stand

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return self._clock() >= self._due

    @property
    def seconds_left(self) -> float:
        """Until it is."""
        return max(0.0, self._due - self._clock())

    def look_soon(self) -> None:
        """Look at the next opportunity."""
        self._due = float("-inf")

    def look(
        self, partitions: Collection[Partition], now_us: int, problem: str | None = None
    ) -> dict[Partition, PartitionRow]:
        """Beat, see who else is there, let go and take; what this consumer reads now, as it stands.

        `partitions`: of the topics, as the broker has them. `problem`: what keeps this consumer from
        reading. Raises StorageUnavailableError.
        """
        started = self._clock()
        with self._database.begin() as connection:
            advisory_lock.take_turns(connection, "streams")
            if not stream_rows.beat(connection, self.source, self.consumer, now_us, problem):
                stream_rows.join(connection, self.source, self.consumer, self.topics, now_us)
            alive = self._alive(connection, started)
            stream_rows.add_partitions(connection, self.source, partitions)
            rows = stream_rows.list_partitions(connection, self.source)
            found = self._settle(connection, rows, partitions, alive)
        self._due = started + self.lease_seconds / 3
        return found

    def leave(self) -> None:
        """Let everything go, so that the others need not wait."""
        with self._database.begin() as connection:
            stream_rows.leave(connection, self.source, self.consumer)

    def _alive(self, connection: Connection, now: float) -> dict[str, tuple[str, ...]]:
        """The topics of each consumer that beats; rows of those that do not are removed."""
        alive: dict[str, tuple[str, ...]] = {}
        seen: dict[str, tuple[int, float]] = {}
        for row in stream_rows.list_consumers(connection, self.source):
            beats, since = self._seen.get(row.consumer, (-1, now))
            seen[row.consumer] = (row.beats, now if beats != row.beats else since)
            if row.consumer != self.consumer and now - seen[row.consumer][1] >= self.lease_seconds:
                self._remove(connection, row)
            else:
                alive[row.consumer] = row.topics
        self._seen = seen
        return alive

    def _remove(self, connection: Connection, row: ConsumerRow) -> None:
        stream_rows.remove_silent(connection, row)
        log.warning("a consumer is gone", consumer=row.consumer, source=self.source)

    def _settle(
        self,
        connection: Connection,
        rows: Sequence[PartitionRow],
        partitions: Collection[Partition],
        alive: Mapping[str, tuple[str, ...]],
    ) -> dict[Partition, PartitionRow]:
        """Let go what falls to another, take what falls here and is free; what is read here then."""
        # All of the source, whoever reads it: all must deal out the same.
        others = [row.key for row in rows if row.topic not in self.topics]
        own = partitions or [row.key for row in rows if row.topic in self.topics]
        dealt = deal([*own, *others], alive)
        found: dict[Partition, PartitionRow] = {}
        for row in rows:
            mine = dealt.get(row.key) == self.consumer
            if row.consumer == self.consumer:
                if mine:
                    found[row.key] = row
                else:
                    stream_rows.release(connection, row)
            elif mine and row.consumer not in alive:
                taken = stream_rows.claim(connection, row, self.consumer)
                if taken is not None:
                    found[row.key] = taken
        return found
