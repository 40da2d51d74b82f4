"""NATS JetStream: messages of a subject, pulled by an ordered consumer from a sequence of ours.

The server's consumer acknowledges nothing and goes with the connection. Its own numbers must follow one
another: where one is left out, a message was lost on its way, and reading begins again at the position.
A durable consumer would keep a second truth beside the stored position (docs/decisions).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

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

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

Result = TypeVar("Result")
FETCH = 100  # messages of one request
IDLE_SECONDS = 60.0  # after which the server forgets a consumer that asks for nothing


@dataclass
class _Reading:
    """A partition as it is read."""

    position: int  # sequence of the next message
    pull: JetStreamContext.PullSubscription | None = None
    delivered: int = 0  # how many the server's consumer has given


class NatsBroker:
    """A `Broker`. Its event loop runs while a method does."""

    def __init__(self, address: Address, topics: Sequence[str]) -> None:
        """Nothing connects yet. Raises MissingExtraError, ConfigError."""
        try:
            import nats
            import nats.aio.client
            import nats.errors
            import nats.js.api
            import nats.js.errors
        except ImportError:
            raise MissingExtraError("nats", "to consume from NATS JetStream") from None
        self._nats = nats
        self._address = address
        self._tls = address.tls_context()
        self._topics = tuple(topics)
        self._runner = asyncio.Runner()
        self._client: Client | None = None
        self._streams: dict[str, str] = {}  # by topic
        self._reading: dict[Partition, _Reading] = {}

    def _run(self, work: Coroutine[Any, Any, Result], seconds: float = 0.0) -> Result:
        try:
            return self._runner.run(asyncio.wait_for(work, 4 * CALL_SECONDS + seconds))
        except self._nats.js.errors.APIError as error:
            self._forget_pulls()
            reason = f"the server refuses: {str(error.description or error)[:120]}"
            raise BrokerUnavailableError(reason) from None
        except (
            self._nats.errors.Error,
            self._nats.js.errors.Error,
            OSError,
            TimeoutError,
        ) as error:
            self._drop()
            reason = f"the server cannot be reached ({type(error).__name__})"
            raise BrokerUnavailableError(reason) from None

    async def _stream_context(self) -> JetStreamContext:
        if self._client is None or not self._client.is_connected:
            self._forget_pulls()
            given = self._address
            scheme = "tls" if given.tls else "nats"
            named: dict[str, Any] = {}
            if given.password:
                named = {"user": given.username, "password": given.password}

            async def ignore(_error: Exception) -> None:
                """What fails is told by the call that it fails."""

            # Kept before it connects: where that fails, `_drop` closes what it has opened.
            self._client = self._nats.aio.client.Client()
            await self._client.connect(
                servers=[f"{scheme}://{one}" for one in given.servers],
                error_cb=ignore,
                allow_reconnect=False,  # whoever asks again connects again
                max_reconnect_attempts=1,
                connect_timeout=round(CALL_SECONDS),
                tls=self._tls,
                **named,
            )
        return self._client.jetstream(timeout=CALL_SECONDS)

    def partitions(self) -> list[Partition]:
        return self._run(self._partitions())

    async def _partitions(self) -> list[Partition]:
        context = await self._stream_context()
        for topic in self._topics:
            try:
                self._streams[topic] = await context.find_stream_name_by_subject(topic)
            except self._nats.js.errors.NotFoundError:
                raise BrokerUnavailableError(f"no stream has the subject {topic}") from None
        return [Partition(topic, 0) for topic in self._topics]

    def start(self, partition: Partition, position: str | None, first: First) -> Start:
        return self._run(self._start(partition, position, first))

    async def _start(self, partition: Partition, position: str | None, first: First) -> Start:
        context = await self._stream_context()
        state = (await context.stream_info(self._streams[partition.topic])).state
        if position is None:
            return Start(
                str(max(1, state.first_seq) if first == "earliest" else state.last_seq + 1)
            )
        at = int(position)
        if at > state.last_seq + 1:
            raise PartitionUnreadableError(
                partition,
                f"read up to {at}, but the stream ends at {state.last_seq}: it was recreated; "
                "consume it under another --name",
            )
        return Start(str(max(at, state.first_seq)), max(0, state.first_seq - at))

    def assign(self, positions: Mapping[Partition, str]) -> None:
        for one in list(self._reading):
            if one not in positions or self._reading[one].position != int(positions[one]):
                self._run(self._end_pull(self._reading.pop(one)))
        for one, position in positions.items():
            self._reading.setdefault(one, _Reading(int(position)))

    async def _end_pull(self, reading: _Reading) -> None:
        pull, reading.pull = reading.pull, None
        if pull is not None and self._client is not None and self._client.is_connected:
            await pull.unsubscribe()

    def read(self, most: int, seconds: float) -> list[Message]:
        if not self._reading:
            return []
        return self._run(self._read(most, seconds), seconds)

    async def _read(self, most: int, seconds: float) -> list[Message]:
        share = max(1, most // len(self._reading))
        each = [self._fetch(one, share, seconds) for one in self._reading]
        return [message for found in await asyncio.gather(*each) for message in found]

    async def _fetch(self, partition: Partition, most: int, seconds: float) -> list[Message]:
        reading = self._reading[partition]
        until = asyncio.get_running_loop().time() + seconds
        found: list[Message] = []
        size = 0
        while len(found) < most and size < BATCH_BYTES:
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                break
            pull = reading.pull or await self._begin_pull(partition, reading)
            try:
                fetched = await pull.fetch(min(FETCH, most - len(found)), timeout=left)
            except TimeoutError:
                if self._client is None or not self._client.is_connected:
                    raise self._nats.errors.ConnectionClosedError from None
                break
            for one in fetched:
                message = self._message(partition, reading, one)
                if message is None:  # one was lost on its way
                    await self._end_pull(reading)
                    return found
                found.append(message)
                size += message.size
        return found

    async def _begin_pull(
        self, partition: Partition, reading: _Reading
    ) -> JetStreamContext.PullSubscription:
        api = self._nats.js.api
        context = await self._stream_context()
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=reading.position,
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=IDLE_SECONDS,
            max_waiting=8,
            mem_storage=True,
        )
        stream = self._streams[partition.topic]
        reading.pull = await context.pull_subscribe(partition.topic, stream=stream, config=config)
        reading.delivered = 0
        return reading.pull

    def _message(self, partition: Partition, reading: _Reading, given: Msg) -> Message | None:
        about = given.metadata
        if about.sequence.consumer != reading.delivered + 1:
            return None
        reading.delivered += 1
        reading.position = about.sequence.stream + 1
        return Message(
            partition,
            str(about.sequence.stream),
            about.sequence.stream,
            given.data,
            str(reading.position),
            round(about.timestamp.timestamp() * 1e6),
            (given.headers or {}).get("Nats-Msg-Id"),
        )

    def lags(self) -> dict[Partition, int]:
        return self._run(self._lags())

    async def _lags(self) -> dict[Partition, int]:
        found: dict[Partition, int] = {}
        for partition, reading in self._reading.items():
            pull = reading.pull or await self._begin_pull(partition, reading)
            found[partition] = (await pull.consumer_info()).num_pending or 0
        return found

    def _forget_pulls(self) -> None:
        for reading in self._reading.values():
            reading.pull = None

    def _drop(self) -> None:
        """Let a connection go that failed; the next call makes another."""
        client, self._client = self._client, None
        self._forget_pulls()
        if client is not None:
            self._runner.run(_close(client))

    def close(self) -> None:
        self._drop()
        self._runner.close()


async def _close(client: Client) -> None:
    with suppress(Exception):  # it is gone either way
        await asyncio.wait_for(client.close(), CALL_SECONDS)
