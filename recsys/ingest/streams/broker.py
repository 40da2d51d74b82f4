"""What a stream is made of, and what a broker's reader does; positions are kept by whoever asks.

A broker is told where reading goes on and never what has been read: no message is acknowledged to it, so
nothing can be acknowledged too early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from recsys.errors import RecsysError

First = Literal["earliest", "latest"]
BATCH_BYTES = 16 * 2**20  # of messages, after which a read ends
CALL_SECONDS = 3.0  # a broker is waited for


class Partition(NamedTuple):
    """A part of a topic whose messages are in order. Redis and NATS have one a topic, 0."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.number}"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the broker gave it."""

    partition: Partition
    offset: str  # its name within the partition
    place: int  # the same as a number; in Redis the milliseconds of its entry's id
    value: bytes | Mapping[str, bytes]  # JSON, or the fields of a Redis entry
    next_position: str  # where reading goes on after it
    at_us: int | None = None  # the broker's time of it
    message_id: str | None = None  # which its sender gave it (Nats-Msg-Id)

    @property
    def size(self) -> int:
        """Bytes, about."""
        if isinstance(self.value, bytes):
            return len(self.value)
        return sum(len(name) + len(text) for name, text in self.value.items())


@dataclass(frozen=True)
class Start:
    """Where a partition is read from."""

    position: str
    missed: int = 0  # messages before it that were never read and that the broker has deleted


class BrokerUnavailableError(RecsysError):
    """The broker cannot be reached or refuses to answer; it may do so later."""


class PartitionUnreadableError(RecsysError):
    """A partition cannot be read from its position, such as one that lies beyond its end."""

    def __init__(self, partition: Partition, message: str) -> None:
        self.partition = partition
        super().__init__(message)


class Broker(Protocol):
    """A connection to a broker; of one thread. Every method raises BrokerUnavailableError."""

    def partitions(self) -> Sequence[Partition]:
        """Those of the topics, as the broker has them now."""

    def start(self, partition: Partition, position: str | None, first: First) -> Start:
        """Where reading goes on from `position`; where there is none yet, the `first` message.

        Raises PartitionUnreadableError.
        """

    def assign(self, positions: Mapping[Partition, str]) -> None:
        """Read these partitions, each from its position, and no others."""

    def read(self, most: int, seconds: float) -> list[Message]:
        """The next messages, each partition's in order; waits `seconds` for `most` of them.

        Raises PartitionUnreadableError where one is to be started again.
        """

    def lags(self) -> dict[Partition, int]:
        """How many messages wait in the assigned partitions, where that is known."""

    def close(self) -> None:
        """Let the connection go."""
