"""recsys consume"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import closing
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.read_options import message_options, refuse_reading
from recsys.cli.terminal import ConfigOption, JsonOption, settings_of, show
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.ingest.event_files import ReadOptions
    from recsys.ingest.streams.broker import First

MAX_URL_BYTES = 4_096


def register(app: typer.Typer) -> None:
    app.command("consume")(consume)


@message_options
def consume(
    kind: Annotated[str, typer.Argument(help="kafka, redis or nats.")],
    url: Annotated[
        str,
        typer.Argument(help="kafka://host:9092, redis://host/0, nats://host; or file:PATH of it."),
    ],
    topics: Annotated[
        list[str], typer.Argument(metavar="TOPIC...", help="Topics, streams, subjects.")
    ],
    *,
    reading: ReadOptions,
    first: Annotated[
        str, typer.Option("--from", help="Where a topic begins the first time: earliest or latest.")
    ] = "earliest",
    name: Annotated[
        str | None,
        typer.Option(help="Name that positions are kept under. Default: the broker's address."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Consume events from a stream until stopped. Start as many as you like: they share the partitions.

    A message is JSON as POST /events takes it, one of Segment's tracking API, or anything that --map
    reads. Positions are stored with the events, so that each message counts once; bad ones are
    quarantined (docs/streams.md).

    Example: recsys consume kafka kafka://broker:9092 clicks --map user=uid,item=payload.sku
    """
    from recsys.consume.consumer import Consumer
    from recsys.consume.message_store import MessageStore
    from recsys.consume.shares import Shares
    from recsys.ingest.ecommerce_events import EventNames
    from recsys.ingest.streams.addresses import KINDS, parse_address
    from recsys.ingest.streams.brokers import open_broker
    from recsys.ingest.streams.message_rows import MessageParser
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.stream_rows import COUNTS
    from recsys.storage.events_source import open_events_source
    from recsys.storage.schema import migrate
    from recsys.text_rules import text_problem

    settings = settings_of(config)
    if kind not in KINDS:
        raise InputError("KIND", kind, f"expected one of: {', '.join(KINDS)}")
    if first not in ("earliest", "latest"):
        raise InputError("--from", first, "expected earliest or latest")
    if name is not None and (problem := text_problem(name)):
        raise InputError("--name", name, problem)
    parser = MessageParser(_mapped(reading), EventNames(settings.segment.events))
    chosen = settings.consume
    address = parse_address(kind, _resolved(url), chosen)
    broker = open_broker(address, topics)
    with closing(open_database(settings)) as database:
        migrate.check(database)
        open_events_source(settings, database).check_writable()
        shares = Shares(
            database, name or address.name, topics, chosen.lease_seconds, time.monotonic
        )
        store = MessageStore(database, parser)
        begin: First = "latest" if first == "latest" else "earliest"
        consumer = Consumer(
            database, broker, shares, store, begin, chosen.batch_messages, chosen.batch_seconds
        )
        stop = threading.Event()

        def end(signum: int, frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        consumer.run(stop)
    show({count: store.totals[count] for count in COUNTS}, as_json)


def _mapped(reading: ReadOptions) -> ReadOptions | None:
    """How messages are read, None: by their shape. Raises InputError."""
    if reading.columns.mapped():
        return reading
    refuse_reading(reading, "says more of --map, which is not there")
    return None


def _resolved(url: str) -> str:
    """`file:PATH` stands for that file's content, so that no password is an argument."""
    if not url.startswith("file:"):
        return url
    try:
        with open(url[5:], encoding="utf-8") as file:
            return file.read(MAX_URL_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the file cannot be read ({type(error).__name__})"
        raise InputError("URL", url, reason) from None
