"""What an event holds: one table of its fields, from which every other list of them is made.

A field more is a line of DETAIL_FIELDS and of `Event`, a column of `recsys.storage.schema.tables`
and a migration. One that files map (`mapped_as`) is a field of `ColumnMap` in `recsys.ingest.layouts` too,
and one that an external table maps (`in_table`) a key of [events] in `recsys.config.sections` and
config.toml. What could not be generated is held against this table by tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from recsys.text_rules import MAX_ID_LENGTH, MAX_TYPE_LENGTH

MAX_PROPERTIES_BYTES = 8_192  # JSON text
MAX_FUTURE_SECONDS = 300
EARLIEST_US = 0  # 1970-01-01, UTC
DEFAULT_EVENT_TYPE = "view"

Kind = Literal["text", "time", "number", "object"]
_ARROW_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "time": pa.int64(),  # µs since 1970, UTC
    "number": pa.float64(),
    "object": pa.string(),  # a JSON object as text: compact, keys sorted
}


@dataclass(frozen=True)
class EventField:
    """One field of an event, as it is stored, posted and mapped."""

    name: str  # of the column, in tables, event frames and exports
    kind: Kind = "text"
    nullable: bool = True
    max_length: int = MAX_ID_LENGTH  # characters, of a text
    posted_as: str = ""  # its name in REST, where that differs
    mapped_as: str = ""  # its key in --map
    in_table: bool = False  # whether <key>_column in [events] names it too
    description: str | None = None  # in REST's schema

    @property
    def rest_name(self) -> str:
        return self.posted_as or self.name

    @property
    def arrow_type(self) -> pa.DataType:
        return _ARROW_TYPES[self.kind]


# What sequences are made of.
SEQUENCE_FIELDS = (
    EventField("user_id", mapped_as="user", in_table=True),
    EventField("session_id", mapped_as="session", in_table=True),
    EventField("item_id", nullable=False, mapped_as="item", in_table=True),
    EventField(
        "event_type",
        nullable=False,
        max_length=MAX_TYPE_LENGTH,
        mapped_as="event_type",
        in_table=True,
    ),
    EventField(
        "timestamp_us",
        kind="time",
        nullable=False,
        posted_as="timestamp",
        mapped_as="timestamp",
        in_table=True,
        description="RFC 3339 with an offset, or epoch milliseconds; default now",
    ),
)
# What else is stored of an event. Each may be missing where it is posted or read.
DETAIL_FIELDS = (
    EventField(
        "event_id",
        mapped_as="event_id",
        in_table=True,
        description="Your idempotency key: a retry is a duplicate",
    ),
    EventField("value", kind="number", mapped_as="value", in_table=True),
    EventField("recommendation_id", mapped_as="recommendation_id"),
    EventField("properties", kind="object", mapped_as="properties"),
)
EVENT_FIELDS = (*SEQUENCE_FIELDS, *DETAIL_FIELDS)
EVENT_COLUMNS = tuple(one.name for one in EVENT_FIELDS)
# In the order of REST's documents and messages: the item first.
POSTED_FIELDS = tuple(sorted(EVENT_FIELDS, key=lambda one: one.name != "item_id"))

EVENT_SCHEMA = pa.schema(
    [pa.field(one.name, one.arrow_type, nullable=one.nullable) for one in EVENT_FIELDS]
)
# `position` is the place in the source, which breaks ties in time.
POSITIONED_SCHEMA = EVENT_SCHEMA.append(pa.field("position", pa.int64(), nullable=False))


@dataclass(frozen=True, slots=True)
class Event:
    """One acceptable event; at least one of `user_id` and `session_id` is set."""

    user_id: str | None
    session_id: str | None
    item_id: str
    event_type: str
    timestamp_us: int  # µs since 1970, UTC
    event_id: str | None = None
    value: float | None = None
    recommendation_id: str | None = None
    properties: str | None = None  # JSON object text, compact, keys sorted


def event_table(columns: dict[str, pa.Array]) -> pa.Table:
    """An event table (EVENT_SCHEMA) of `columns`; those that are not given are null.

    Raises KeyError where a column that must hold a value is not given.
    """
    rows = len(next(iter(columns.values())))
    arrays = [
        columns.get(one.name, pa.nulls(rows, one.arrow_type)) if one.nullable else columns[one.name]
        for one in EVENT_FIELDS
    ]
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)
