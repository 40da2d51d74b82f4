"""A batch of messages -> events, quarantine and positions, in one transaction."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from recsys.commands import intake
from recsys.errors import InputError
from recsys.events.fields import Event
from recsys.ingest.raw_rows import Rejection, raw_text
from recsys.ingest.row_owners import OwnerColumns
from recsys.ingest.segment_messages import OWNERS as TRACKED_OWNERS
from recsys.ingest.streams.broker import Message, Partition
from recsys.ingest.streams.message_rows import MessageParser, ParsedMessages, rejection
from recsys.ingest.streams.tracked_messages import TrackedMessages
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import rejected_rows, stream_rows
from recsys.storage.entities.audit_rows import Actor
from recsys.storage.entities.stream_rows import Move, PartitionRow

Counts = Mapping[Partition, Counter[str]]  # by stream_rows.COUNTS
Rejected = tuple[Partition, OwnerColumns]

MAX_BATCH_ROWS = 10_000  # rows after which a batch is stored, whatever is left of its messages

CONSUMER = Actor("consume", "cli")  # whose merges those are that messages ask for

log = structlog.get_logger(__name__)


class MessageStore:
    """Stores what consumers read. The events go the way of those that are posted."""

    def __init__(self, database: Database, parser: MessageParser) -> None:
        self._database, self._parser = database, parser
        self.totals: Counter[str] = Counter()  # of this process, by stream_rows.COUNTS
        self._told: set[str] = set()

    def store(
        self,
        messages: Sequence[Message],
        rows: Mapping[Partition, PartitionRow],
        now_us: int,
    ) -> dict[Partition, PartitionRow]:
        """Store the events of `messages`, which are in order, and the positions after them.

        `rows`: the partitions as this consumer knows them; as they are afterwards comes back. Raises
        LostLeaseError where one is another's by now, StorageUnavailableError; nothing is stored then.
        """
        try:
            parsed = self._parser.parse(messages, now_us)
            if sum(parsed.read.values()) > MAX_BATCH_ROWS and len(messages) > 1:
                return self._halves(messages, rows, now_us)
            return self._commit(messages, parsed, rows, now_us)
        except (
            InputError
        ) as error:  # a value that the database cannot hold: one message is at fault
            if len(messages) > 1:
                return self._halves(messages, rows, now_us)
            refused = ParsedMessages()
            value = messages[0].value
            text = (
                value[:4_096].decode(errors="backslashreplace") if isinstance(value, bytes) else ""
            )
            refused.reject(messages[0], str(error), raw_text(text))
            return self._commit(messages, refused, rows, now_us)

    def _halves(
        self, messages: Sequence[Message], rows: Mapping[Partition, PartitionRow], now_us: int
    ) -> dict[Partition, PartitionRow]:
        middle = len(messages) // 2
        moved = self.store(messages[:middle], rows, now_us)
        return self.store(messages[middle:], moved, now_us)

    def _commit(
        self,
        messages: Sequence[Message],
        parsed: ParsedMessages,
        rows: Mapping[Partition, PartitionRow],
        now_us: int,
    ) -> dict[Partition, PartitionRow]:
        counts: defaultdict[Partition, Counter[str]] = defaultdict(Counter)
        for message in messages:
            counts[message.partition]["messages"] += 1
        for partition, number in parsed.read.items():
            counts[partition]["read"] += number
        for partition, number in parsed.left_out.items():
            counts[partition]["left_out"] += number
        ends = {message.partition: message for message in messages}
        with self._database.begin() as connection:
            advisory_lock.lock_shared(connection)
            _store_events(connection, parsed.events, counts, now_us)
            refused = _store_tracked(connection, parsed.tracked, counts, now_us)
            for (partition, owners), rejections in (*parsed.rejections.items(), *refused.items()):
                _store_rejections(connection, partition, owners, rejections, counts, now_us)
            moves = [
                Move(rows[partition], last.next_position, counts[partition], last.at_us)
                for partition, last in ends.items()
            ]
            stream_rows.advance(connection, moves, now_us)
        for one in counts.values():
            self.totals += one
        for note in parsed.notes.keys() - self._told:
            self._told.add(note)
            log.warning("rows are read otherwise than written", note=note)
        return {**rows, **{move.row.key: _moved(move) for move in moves}}


def _store_events(
    connection: Connection,
    found: Sequence[tuple[Partition, Event]],
    counts: Counts,
    now_us: int,
) -> None:
    """Store events but for those of users who were erased; count what became of them."""
    numbered = list(enumerate(event for _, event in found))
    erased, stored = intake.store_events(connection, numbered, now_us, None)
    for place in erased:
        counts[found[place][0]]["left_out"] += 1
    kept = [partition for place, (partition, _) in enumerate(found) if place not in erased]
    for partition, one in zip(kept, stored, strict=True):
        counts[partition]["accepted" if one.accepted else "duplicates"] += 1


def _store_tracked(
    connection: Connection, tracked: TrackedMessages, counts: Counts, now_us: int
) -> dict[Rejected, list[Rejection]]:
    """Store what tracked messages mean; count what became of them; those that are refused."""
    refused: defaultdict[Rejected, list[Rejection]] = defaultdict(list)
    if not tracked.sources:
        return refused
    batch = tracked.batch
    done = intake.store_meaning(connection, batch, CONSUMER, now_us, None)
    for index, _, one in done.events:
        partition = tracked.sources[index].partition
        counts[partition]["accepted" if one.accepted else "duplicates"] += 1
    for index, _ in batch.events:  # of a user who was erased
        counts[tracked.sources[index].partition]["left_out"] += index in done.problems
    for index in tracked.without_event:
        source, problem = tracked.sources[index], done.problems.get(index)
        if problem is None:
            counts[source.partition]["accepted"] += 1
        else:
            one_refused = rejection(source, problem, batch.raw(index))
            refused[source.partition, TRACKED_OWNERS].append(one_refused)
    return refused


def _store_rejections(
    connection: Connection,
    partition: Partition,
    owners: OwnerColumns,
    rejections: Sequence[Rejection],
    counts: Counts,
    now_us: int,
) -> None:
    kept = rejected_rows.add_rejections(connection, str(partition), rejections, now_us, owners)
    counts[partition]["rejected"] += kept
    counts[partition]["left_out"] += len(rejections) - kept


def _moved(move: Move) -> PartitionRow:
    """The partition as it stands after the transaction, as far as its consumer needs to know."""
    return replace(move.row, position=move.position)
