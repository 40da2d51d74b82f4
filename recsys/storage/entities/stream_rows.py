"""Positions in streams, stored with the events that come from them, and who reads what.

A partition's row bears a token that grows with each consumer that takes it. `advance` moves a position
only where token and position stand as the consumer knows them, in the transaction that stores the events:
so each message is stored once, however many consumers believe that they read it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from recsys.errors import LostLeaseError
from recsys.ingest.streams.broker import Partition
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import stream_consumers, stream_partitions

COUNTS = ("messages", "read", "accepted", "duplicates", "rejected", "left_out", "missed")
MOST_SHOWN = 1_000  # partitions
MAX_PROBLEM = 300

_rows = stream_partitions.c
_members = stream_consumers.c


@dataclass(frozen=True)
class PartitionRow:
    """A partition as it stands."""

    source: str
    topic: str
    partition: int
    position: str | None
    consumer: str | None
    token: int
    messages: int
    read: int
    accepted: int
    duplicates: int
    rejected: int
    left_out: int
    missed: int
    lag: int | None
    last_message_at_us: int | None
    reported_at_us: int | None
    problem: str | None

    @property
    def key(self) -> Partition:
        return Partition(self.topic, self.partition)


@dataclass(frozen=True)
class ConsumerRow:
    """A consumer as it was last heard of."""

    source: str
    consumer: str
    topics: tuple[str, ...]
    beats: int
    joined_at_us: int
    renewed_at_us: int
    problem: str | None


@dataclass(frozen=True)
class Move:
    """A partition's position, moved by what was read of it."""

    row: PartitionRow  # as the consumer knows it
    position: str
    counts: Mapping[str, int] = field(default_factory=Counter)  # by COUNTS
    last_message_at_us: int | None = None


def join(
    connection: Connection, source: str, consumer: str, topics: Collection[str], now_us: int
) -> None:
    """Say that a consumer reads these topics from now on."""
    row = {
        "source": source,
        "consumer": consumer,
        "topics": json.dumps(sorted(topics)),
        "joined_at_us": now_us,
        "renewed_at_us": now_us,
    }
    connection.execute(stream_consumers.insert(), row)


def beat(
    connection: Connection, source: str, consumer: str, now_us: int, problem: str | None
) -> bool:
    """Say that a consumer lives, and what keeps it from reading; False where it counts as gone."""
    renewed = connection.execute(
        update(stream_consumers)
        .where(_members.source == source, _members.consumer == consumer)
        .values(
            beats=_members.beats + 1,
            renewed_at_us=now_us,
            problem=problem and problem[:MAX_PROBLEM],
        )
    )
    return renewed.rowcount == 1


def leave(connection: Connection, source: str, consumer: str) -> None:
    """Let everything go that a consumer reads, and forget it."""
    held = (_rows.source == source, _rows.consumer == consumer)
    connection.execute(update(stream_partitions).where(*held).values(consumer=None))
    connection.execute(
        delete(stream_consumers).where(_members.source == source, _members.consumer == consumer)
    )


def remove_silent(connection: Connection, seen: ConsumerRow) -> None:
    """Forget a consumer whose beats still stand as `seen`."""
    connection.execute(
        delete(stream_consumers).where(
            _members.source == seen.source,
            _members.consumer == seen.consumer,
            _members.beats == seen.beats,
        )
    )


def list_consumers(connection: Connection, source: str | None = None) -> list[ConsumerRow]:
    """The consumers of `source`, or of all, by name."""
    statement = select(stream_consumers).order_by(_members.source, _members.consumer)
    if source is not None:
        statement = statement.where(_members.source == source)
    return [
        ConsumerRow(**{**row._mapping, "topics": tuple(json.loads(row.topics))})
        for row in connection.execute(statement.limit(MOST_SHOWN))
    ]


def add_partitions(connection: Connection, source: str, partitions: Collection[Partition]) -> None:
    """Make the rows of partitions that have none."""
    made = upsert(connection, stream_partitions).on_conflict_do_nothing(
        index_elements=["source", "topic", "partition"]
    )
    rows = [
        {"source": source, "topic": one.topic, "partition": one.number}
        for one in sorted(partitions)
    ]
    if rows:
        connection.execute(made, rows)


def list_partitions(connection: Connection, source: str | None = None) -> list[PartitionRow]:
    """The partitions of `source`; without one the first MOST_SHOWN of all."""
    order = (_rows.source, _rows.topic, _rows.partition)
    statement = select(stream_partitions).order_by(*order)
    if source is None:
        statement = statement.limit(MOST_SHOWN)
    else:
        statement = statement.where(_rows.source == source)
    return [PartitionRow(**row._mapping) for row in connection.execute(statement)]


def claim(connection: Connection, seen: PartitionRow, consumer: str) -> PartitionRow | None:
    """Take a partition that still stands as `seen`; as it stands then, None where another was quicker."""
    values: dict[str, Any] = {"consumer": consumer, "token": seen.token + 1, "problem": None}
    taken = connection.execute(
        update(stream_partitions)
        .where(_is(seen), _rows.consumer.is_not_distinct_from(seen.consumer))
        .values(**values)
    )
    return replace(seen, **values) if taken.rowcount == 1 else None


def release(connection: Connection, held: PartitionRow) -> None:
    """Let a partition go; nothing happens where another has it."""
    connection.execute(update(stream_partitions).where(_is(held)).values(consumer=None))


def advance(connection: Connection, moves: Sequence[Move], now_us: int) -> None:
    """Move positions, in the transaction that stores what was read.

    Raises LostLeaseError where a partition is another consumer's by now, or its position is not what
    this one thought; nothing of the transaction may be committed then.
    """
    for move in sorted(moves, key=lambda one: one.row.key):
        more: dict[str, Any] = {
            name: _rows[name] + number for name, number in move.counts.items() if number
        }
        if move.last_message_at_us is not None:
            more["last_message_at_us"] = move.last_message_at_us
        moved = connection.execute(
            update(stream_partitions)
            .where(_is(move.row), _rows.position.is_not_distinct_from(move.row.position))
            .values(position=move.position, reported_at_us=now_us, problem=None, **more)
        )
        if moved.rowcount != 1:
            raise LostLeaseError(f"{move.row.key} is read by another consumer by now")


def report(
    connection: Connection,
    held: Collection[PartitionRow],
    lags: Mapping[Partition, int] | None,
    problems: Mapping[Partition, str],
    now_us: int,
) -> None:
    """Write down how far behind the partitions are, and why one is not read.

    `lags` is None where the broker did not say; what was known stands then.
    """
    for row in sorted(held, key=lambda one: one.key):
        values: dict[str, Any] = {"problem": problems.get(row.key, "")[:MAX_PROBLEM] or None}
        if lags is not None:
            values |= {"lag": lags.get(row.key), "reported_at_us": now_us}
        connection.execute(update(stream_partitions).where(_is(row)).values(**values))


def _is(row: PartitionRow) -> ColumnElement[bool]:
    """The condition of being this partition under this token."""
    return and_(
        _rows.source == row.source,
        _rows.topic == row.topic,
        _rows.partition == row.partition,
        _rows.token == row.token,
    )
