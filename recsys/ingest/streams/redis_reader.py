"""Redis Streams: entries read by XREAD from a position of ours.

A position is `ID/NUMBER`: the id of the last entry read, and how many entries were added up to it, by
which lag and entries trimmed before they were read are counted. Consumer groups are not used: their state
lies in Redis and could not move in the transaction that stores the events (docs/decisions).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from recsys.errors import MissingExtraError
from recsys.ingest.streams.addresses import Address
from recsys.ingest.streams.broker import (
    BATCH_BYTES,
    CALL_SECONDS,
    BrokerUnavailableError,
    First,
    Message,
    Partition,
    PartitionUnreadableError,
    Start,
)

_NONE_READ = "0-0"
_LEAST_BLOCK = 0.01  # seconds; Redis takes 0 for ever


class RedisBroker:
    """A `Broker`."""

    def __init__(self, address: Address, topics: Sequence[str]) -> None:
        """Nothing connects yet. Raises MissingExtraError."""
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingExtraError("redis", "to consume from Redis Streams") from None
        self._redis = redis
        self._topics = tuple(topics)
        self._assigned: dict[Partition, tuple[str, int | None]] = {}
        host, _, port = address.servers[0].rpartition(":")
        encrypted: dict[str, Any] = {}
        if address.tls:
            address.tls_context()  # raises where a file cannot be used
            encrypted = {
                "ssl": True,
                "ssl_ca_certs": address.ca_file or None,
                "ssl_certfile": address.certificate_file or None,
                "ssl_keyfile": address.key_file or None,
            }
        self._client = redis.Redis(
            host=host.strip("[]"),
            port=int(port),
            db=int(address.database or 0),
            username=address.username or None,
            password=address.password or None,
            socket_timeout=CALL_SECONDS + 1,
            socket_connect_timeout=CALL_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **encrypted,
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except self._redis.exceptions.AuthenticationError:
            raise BrokerUnavailableError("Redis refuses name or password") from None
        except self._redis.exceptions.ResponseError as error:
            raise BrokerUnavailableError(f"Redis refuses: {str(error)[:120]}") from None
        except (self._redis.exceptions.RedisError, OSError) as error:
            reason = type(error).__name__
            raise BrokerUnavailableError(f"Redis cannot be reached ({reason})") from None

    def partitions(self) -> list[Partition]:
        with self._asking():
            self._client.ping()
        return [Partition(topic, 0) for topic in self._topics]

    def start(self, partition: Partition, position: str | None, first: First) -> Start:
        last, added, length = self._ends(partition.topic)
        gone = None if added is None else added - length  # entries that were trimmed or deleted
        if position is None:
            at, number = (_NONE_READ, gone) if first == "earliest" else (last, added)
            return Start(_position(at, number))
        at, number = _parts(position)
        if length and _order(last) < _order(at):
            raise PartitionUnreadableError(
                partition,
                f"read up to {at}, but the stream ends at {last}: it was recreated; "
                "consume it under another --name",
            )
        if at == last:
            number = added
        elif added is None or number is None or gone is None or added < number:
            # Recreated, with newer ids: all that is there comes after what was read.
            number = gone
        missed = max(0, (gone or 0) - (number or 0))
        return Start(_position(at, None if number is None else number + missed), missed)

    def _ends(self, topic: str) -> tuple[str, int | None, int]:
        """Last id, entries ever added (from Redis 7 on) and length of a stream; of one that is not
        there yet as of an empty one.
        """
        try:
            with self._asking():
                if not self._client.exists(topic):
                    return _NONE_READ, 0, 0
                found = self._client.xinfo_stream(topic)
        except BrokerUnavailableError as error:
            raise BrokerUnavailableError(f"{topic}: {error}") from None
        return found["last-generated-id"].decode(), found.get("entries-added"), found["length"]

    def assign(self, positions: Mapping[Partition, str]) -> None:
        self._assigned = {one: _parts(position) for one, position in positions.items()}

    def read(self, most: int, seconds: float) -> list[Message]:
        found: list[Message] = []
        until = time.monotonic() + seconds
        size = 0
        while self._assigned and len(found) < most and size < BATCH_BYTES:
            left = until - time.monotonic()
            if left <= 0:
                break
            block = (
                None if found and left < _LEAST_BLOCK else round(1_000 * max(left, _LEAST_BLOCK))
            )
            share = max(1, (most - len(found)) // len(self._assigned))
            ids = {one.topic: at for one, (at, _) in self._assigned.items()}
            with self._asking():
                answer: Any = self._client.xread(ids, count=min(share, 100), block=block)  # type: ignore[arg-type]
            for topic, entries in answer or ():
                fresh = self._messages(Partition(topic.decode(), 0), entries)
                size += sum(one.size for one in fresh)
                found += fresh
        return found

    def _messages(self, partition: Partition, entries: Sequence[Any]) -> list[Message]:
        _, number = self._assigned[partition]
        found = []
        for entry_id, fields in entries:
            at = entry_id.decode()
            number = None if number is None else number + 1
            milliseconds = int(at.partition("-")[0])
            value = {
                name.decode(errors="backslashreplace"): text
                for name, text in (fields or {}).items()
            }
            position = _position(at, number)
            found.append(
                Message(partition, at, milliseconds, value, position, milliseconds * 1_000)
            )
        if found:
            self._assigned[partition] = _parts(found[-1].next_position)
        return found

    def lags(self) -> dict[Partition, int]:
        found: dict[Partition, int] = {}
        for partition, (at, number) in self._assigned.items():
            last, added, _ = self._ends(partition.topic)
            if at == last:
                found[partition] = 0
            elif added is not None and number is not None:
                found[partition] = max(0, added - number)
        return found

    def close(self) -> None:
        self._client.close()


def _position(entry_id: str, number: int | None) -> str:
    return entry_id if number is None else f"{entry_id}/{number}"


def _parts(position: str) -> tuple[str, int | None]:
    entry_id, _, number = position.partition("/")
    return entry_id, int(number) if number else None


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)
