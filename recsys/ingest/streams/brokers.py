"""The readers by kind; each loads its library when it is made."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.errors import InputError
from recsys.ingest.streams.addresses import Address
from recsys.ingest.streams.broker import Broker
from recsys.ingest.streams.kafka_reader import KafkaBroker
from recsys.ingest.streams.nats_reader import NatsBroker
from recsys.ingest.streams.redis_reader import RedisBroker
from recsys.text_rules import text_problem

MAX_TOPICS = 100


def open_broker(address: Address, topics: Sequence[str]) -> Broker:
    """The reader of these topics; nothing connects yet. Raises InputError, MissingExtraError."""
    if not 1 <= len(topics) <= MAX_TOPICS:
        raise InputError("TOPIC", len(topics), f"expected 1 to {MAX_TOPICS} topics")
    for topic in topics:
        if problem := text_problem(topic):
            raise InputError("TOPIC", topic, problem)
        if topics.count(topic) > 1:
            raise InputError("TOPIC", topic, "is named twice")
    if address.kind == "kafka":
        return KafkaBroker(address, topics)
    if address.kind == "redis":
        return RedisBroker(address, topics)
    return NatsBroker(address, topics)
