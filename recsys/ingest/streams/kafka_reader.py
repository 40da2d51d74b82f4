"""Kafka, and what speaks its protocol (Redpanda, MSK, Event Hubs): partitions read by `assign`.

No consumer group: partitions are shared by rows of the database and positions are kept there, so that the
broker has nothing to say about either.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recsys.errors import ConfigError, MissingExtraError
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
    from confluent_kafka import KafkaError

SLICE = 100  # messages, between looks at how many bytes there are
_GROUP = "recsys"  # librdkafka asks for a name; nothing is committed under it


class KafkaBroker:
    """A `Broker`."""

    def __init__(self, address: Address, topics: Sequence[str]) -> None:
        """Nothing connects yet. Raises MissingExtraError, ConfigError."""
        try:
            import confluent_kafka
        except ImportError:
            raise MissingExtraError("kafka", "to consume from Kafka") from None
        self._kafka = confluent_kafka
        self._topics = tuple(topics)
        self._away: str | None = None
        self._failed: tuple[Partition, KafkaError] | None = None  # after messages that came with it
        self._assigned: dict[Partition, str] = {}
        try:
            self._consumer = confluent_kafka.Consumer(self._options(address))
        except confluent_kafka.KafkaException as error:
            reason = error.args[0].str()
            raise ConfigError("consume", "…", f"Kafka's client refuses it: {reason}") from None

    def _options(self, address: Address) -> dict[str, Any]:
        options: dict[str, Any] = {
            "bootstrap.servers": ",".join(address.servers),
            "group.id": _GROUP,
            "client.id": _GROUP,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # a position that is gone is told, not replaced
            "allow.auto.create.topics": False,
            "isolation.level": "read_committed",
            "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": 2_000,
            "socket.timeout.ms": 10_000,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 32_768,
            "log_level": 0,  # what fails is told through error_cb
            "error_cb": self._on_error,
        }
        protocol = "SSL" if address.tls else "PLAINTEXT"
        if address.password:
            if not address.username:
                raise ConfigError("consume.username", "", "expected a name beside the password")
            protocol = f"SASL_{protocol}"
            options["sasl.mechanisms"] = address.sasl_mechanism
            options["sasl.username"] = address.username
            options["sasl.password"] = address.password
        options["security.protocol"] = protocol
        if address.tls:
            files = {
                "ssl.ca.location": address.ca_file,
                "ssl.certificate.location": address.certificate_file,
                "ssl.key.location": address.key_file,
            }
            options |= {name: path for name, path in files.items() if path}
        return options

    def _on_error(self, error: KafkaError) -> None:
        """What the client tells in the background; one broker of several away is none."""
        codes = self._kafka.KafkaError
        if error.code() in (codes._ALL_BROKERS_DOWN, codes._AUTHENTICATION, codes._FATAL):
            self._away = error.str()

    def partitions(self) -> list[Partition]:
        found: list[Partition] = []
        for topic in self._topics:
            try:
                known = self._consumer.list_topics(topic, timeout=CALL_SECONDS).topics[topic]
            except self._kafka.KafkaException as error:
                raise _unavailable(error.args[0]) from None
            if known.error is not None:
                raise BrokerUnavailableError(f"the topic {topic}: {known.error.str()}")
            found += [Partition(topic, number) for number in sorted(known.partitions)]
        self._away = None
        return found

    def start(self, partition: Partition, position: str | None, first: First) -> Start:
        low, high = self._ends(partition)
        if position is None:
            return Start(str(low if first == "earliest" else high))
        at = int(position)
        if at > high:
            raise PartitionUnreadableError(
                partition,
                f"read up to {at}, but the partition ends at {high}: the topic was recreated; "
                "consume it under another --name",
            )
        return Start(str(max(at, low)), max(0, low - at))

    def _ends(self, partition: Partition) -> tuple[int, int]:
        place = self._kafka.TopicPartition(*partition)
        try:
            ends = self._consumer.get_watermark_offsets(place, timeout=CALL_SECONDS, cached=False)
        except self._kafka.KafkaException as error:
            raise _unavailable(error.args[0]) from None
        if ends is None:
            raise BrokerUnavailableError("the broker does not answer")
        return ends

    def assign(self, positions: Mapping[Partition, str]) -> None:
        self._assigned, self._failed = dict(positions), None
        places = [
            self._kafka.TopicPartition(one.topic, one.number, int(position))
            for one, position in positions.items()
        ]
        try:
            self._consumer.assign(places)
        except self._kafka.KafkaException as error:
            raise _unavailable(error.args[0]) from None

    def read(self, most: int, seconds: float) -> list[Message]:
        self._raise_failure()
        found: list[Message] = []
        size, until = 0, time.monotonic() + seconds
        while len(found) < most and size < BATCH_BYTES and self._failed is None:
            slice_ = self._slice(min(SLICE, most - len(found)), max(0.0, until - time.monotonic()))
            found += slice_
            size += sum(one.size for one in slice_)
            if time.monotonic() >= until:
                break
        if found:
            self._away = None
        else:
            self._raise_failure()
            if self._away is not None:
                raise BrokerUnavailableError(f"the broker cannot be reached: {self._away}")
        return found

    def _slice(self, most: int, seconds: float) -> list[Message]:
        """At most so many messages; what fails among them is kept in `_failed`."""
        found: list[Message] = []
        for one in self._consumer.consume(most, seconds):
            topic, number, offset = one.topic(), one.partition(), one.offset()
            if (error := one.error()) is not None:
                if topic is None or number is None:
                    self._away = self._away or error.str()
                else:
                    self._failed = Partition(topic, number), error
                continue
            assert topic is not None and number is not None and offset is not None
            kind, milliseconds = one.timestamp()
            found.append(
                Message(
                    Partition(topic, number),
                    str(offset),
                    offset,
                    one.value() or b"",
                    str(offset + 1),
                    milliseconds * 1_000 if kind else None,
                )
            )
        return found

    def _raise_failure(self) -> None:
        """What went wrong after the messages of the read before."""
        if self._failed is None:
            return
        (partition, error), self._failed = self._failed, None
        codes = self._kafka.KafkaError
        if error.code() in (codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE):
            raise PartitionUnreadableError(partition, "the broker no longer has its position")
        raise BrokerUnavailableError(f"{partition}: {error.str()}")

    def lags(self) -> dict[Partition, int]:
        found: dict[Partition, int] = {}
        places = self._consumer.position(
            [self._kafka.TopicPartition(*one) for one in self._assigned]
        )
        for place in places:
            ends = self._consumer.get_watermark_offsets(place, cached=True)
            if ends is not None and ends[1] >= 0:
                partition = Partition(place.topic, place.partition)
                at = place.offset if place.offset >= 0 else int(self._assigned[partition])
                found[partition] = max(0, ends[1] - at)
        return found

    def close(self) -> None:
        self._consumer.close()


def _unavailable(error: Any) -> BrokerUnavailableError:
    return BrokerUnavailableError(f"the broker does not answer: {error.str()}")
