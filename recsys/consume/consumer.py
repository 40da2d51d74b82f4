"""The consumer: read, store, and go on from what is stored.

Nothing that this process remembers is relied on: after any failure, partitions and positions are read from
the database again, and the broker is asked from there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Event as Signal

import structlog

from recsys.consume.message_store import MessageStore
from recsys.consume.shares import Shares
from recsys.errors import LostLeaseError, RecsysError, StorageUnavailableError
from recsys.ingest.streams.broker import (
    Broker,
    BrokerUnavailableError,
    First,
    Partition,
    PartitionUnreadableError,
)
from recsys.storage.engine.database import Database
from recsys.storage.entities import stream_rows
from recsys.storage.entities.stream_rows import Move, PartitionRow

METADATA_SECONDS = 30.0  # between looks for new partitions
LEAST_PAUSE, MOST_PAUSE = 0.25, 10.0  # seconds, after the first and the last of many failures
IDLE_SECONDS = 0.2  # without a partition
REMIND_SECONDS = 60.0  # between two warnings of one failure

log = structlog.get_logger(__name__)


def now_us() -> int:
    """The wall clock, in microseconds since 1970."""
    return time.time_ns() // 1_000


@dataclass
class Consumer:
    """One process's part in reading the topics of a source."""

    database: Database
    broker: Broker
    shares: Shares
    store: MessageStore
    first: First = "earliest"
    batch_messages: int = 1_000
    batch_seconds: float = 0.2
    clock: Callable[[], float] = time.monotonic
    _rows: dict[Partition, PartitionRow] = field(default_factory=dict)  # read here, as they stand
    _problems: dict[Partition, str] = field(default_factory=dict)  # why one of them is not
    _known: tuple[Partition, ...] = ()  # of the topics, as the broker last said
    _asked_at: float = float("-inf")
    _failures: int = 0
    _failing_since: float = 0.0
    _warned: tuple[str, float] = ("", 0.0)  # of what, and when

    def run(self, stop: Signal) -> None:
        """Consume until `stop` is set; the batch at hand is ended first."""
        log.info("consumer started", source=self.shares.source, topics=self.shares.topics)
        try:
            while not stop.is_set():
                self._try_step(stop)
        finally:
            self._leave()

    def _try_step(self, stop: Signal) -> None:
        try:
            self.step(stop)
        except LostLeaseError as error:
            log.warning("a partition was taken over", reason=str(error))
            self._start_over()
        except (
            BrokerUnavailableError,
            PartitionUnreadableError,
            StorageUnavailableError,
        ) as error:
            self._pause(error, stop)

    def step(self, stop: Signal) -> None:
        """Look after the shares where that is due, then read and store one batch."""
        if self.shares.is_due:
            self._look()
        if not self._rows:
            stop.wait(min(IDLE_SECONDS, self.shares.seconds_left))
            return
        messages = self.broker.read(self.batch_messages, self.batch_seconds)
        if messages:
            before = self._rows
            self._rows = self.store.store(messages, before, now_us())
        if self._failures:
            self._failures = 0
            log.info("consuming again", source=self.shares.source)

    def _look(self) -> None:
        """Which partitions are read here, from where, and how far behind they are."""
        retried = self.clock() - self._asked_at >= METADATA_SECONDS
        if retried:
            self._known = tuple(self.broker.partitions())
            self._asked_at = self.clock()
        held = self.shares.look(self._known, now_us())
        if retried:
            self._problems = {}
        readable = {key: row for key, row in held.items() if key not in self._problems}
        if _positions(readable) != _positions(self._rows):
            self._assign(readable)
        else:
            self._rows = readable
        lags = self.broker.lags()
        with self.database.begin() as connection:
            stream_rows.report(connection, held.values(), lags, self._problems, now_us())

    def _assign(self, held: dict[Partition, PartitionRow]) -> None:
        """Read `held` from their positions, or from the first where there is none."""
        rows: dict[Partition, PartitionRow] = {}
        for key, row in held.items():
            if key in self._rows and self._rows[key].position == row.position:
                rows[key] = row
                continue
            try:
                rows[key] = self._begin(key, row)
            except PartitionUnreadableError as error:
                self._problems[key] = str(error)
                log.error("a partition cannot be read", partition=str(key), reason=str(error))
        self._rows = {}
        self.broker.assign({key: row.position or "" for key, row in rows.items()})
        self._rows = rows

    def _begin(self, key: Partition, row: PartitionRow) -> PartitionRow:
        """The partition with the position that it is read from, which is written down before."""
        start = self.broker.start(key, row.position, self.first)
        if start.missed:
            log.warning("messages were deleted unread", partition=str(key), missed=start.missed)
        if start.position == row.position:
            return row
        moves = [Move(row, start.position, Counter(missed=start.missed))]
        with self.database.begin() as connection:
            stream_rows.advance(connection, moves, now_us())
        return replace(row, position=start.position)

    def _start_over(self) -> None:
        self._rows, self._problems = {}, {}
        self.shares.look_soon()

    def _pause(self, error: RecsysError, stop: Signal) -> None:
        """Wait a little longer each time; beat meanwhile, so that the partitions stay here."""
        self._failures += 1
        self._warn(str(error))
        self._start_over()
        self._asked_at = float("-inf")
        if not isinstance(error, StorageUnavailableError):
            with suppress(StorageUnavailableError):
                self.shares.look(self._known, now_us(), str(error))
            self.shares.look_soon()
        longest = min(MOST_PAUSE, self.shares.lease_seconds / 3)
        stop.wait(min(longest, LEAST_PAUSE * 2 ** min(self._failures - 1, 10)))

    def _warn(self, reason: str) -> None:
        """Say why nothing is read: at once, when the reason changes, and each minute that it stays."""
        now = self.clock()
        if self._failures == 1:
            self._failing_since = now
            log.warning("consuming stopped", source=self.shares.source, reason=reason)
        elif reason != self._warned[0] or now - self._warned[1] >= REMIND_SECONDS:
            seconds = round(now - self._failing_since)
            log.warning(
                "still not consuming", source=self.shares.source, reason=reason, seconds=seconds
            )
        else:
            return
        self._warned = (reason, now)

    def _leave(self) -> None:
        try:
            self.shares.leave()
        except RecsysError as error:
            log.warning("the partitions were not let go", reason=str(error))
        self.broker.close()
        log.info("consumer ended", source=self.shares.source)


def _positions(rows: Mapping[Partition, PartitionRow]) -> dict[Partition, str | None]:
    return {key: row.position for key, row in rows.items()}
