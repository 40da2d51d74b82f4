"""Rows, Arrow tables and arrays -> the DataFrames of a shop.

Legend: E events, N sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError, unknown
from recsys.events.array_types import AnyArray, Int64Array
from recsys.events.fields import EVENT_SCHEMA, Event
from recsys.events.frame import EventFrame
from recsys.events.sequences import Sequences
from recsys.serving.answers import RankedItem
from recsys.storage.entities.item_rows import StoredItem

if TYPE_CHECKING:
    from recsys.training.evaluate import VersionEvaluation

MAX_COLUMNS = 1_000
RECOMMENDED = ("user_id", "rank", "item_id", "score", "source")
SIMILAR = ("rank", "item_id", "title", "score", "source")


class Bounds(NamedTuple):
    """since <= time < until in µs since 1970; None is no bound."""

    since_us: int | None
    until_us: int | None


def tables_of(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches that have at least the columns of EVENT_SCHEMA."""
    for batch in batches:
        yield pa.Table.from_batches([batch]).select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)


def table_of(events: Sequence[Event]) -> pa.Table:
    """Events that a page gives, the newest first; oldest first."""
    return pa.Table.from_pylist([asdict(event) for event in events[::-1]], EVENT_SCHEMA)


def newest(tables: Iterable[pa.Table], bounds: Bounds, limit: int | None) -> pa.Table:
    """Events within `bounds` in order of time, the newest `limit` of them, each once."""
    kept: list[pa.Table] = []
    rows = 0
    for table in tables:
        time = table["timestamp_us"]
        if bounds.since_us is not None:
            table = table.filter(pc.greater_equal(time, bounds.since_us))
            time = table["timestamp_us"]
        if bounds.until_us is not None:
            table = table.filter(pc.less(time, bounds.until_us))
        kept.append(table)
        rows += table.num_rows
        if limit is not None and rows > 2 * limit:
            kept = [_last(_by_time(kept), limit)]
            rows = limit
    found = _by_time(kept)
    return found if limit is None else _last(found, limit)


def _last(table: pa.Table, rows: int) -> pa.Table:
    return table.slice(max(0, table.num_rows - rows))


def _by_time(tables: list[pa.Table]) -> pa.Table:
    if not tables:
        return EVENT_SCHEMA.empty_table()
    table = pa.concat_tables(tables)
    return table.take(np.argsort(table["timestamp_us"].to_numpy(), kind="stable"))


def event_frame(table: pa.Table) -> pd.DataFrame:
    """One row an event; `timestamp` for `timestamp_us`, properties as dicts."""
    time = table["timestamp_us"].cast(pa.timestamp("us", "UTC"))
    place = table.schema.get_field_index("timestamp_us")
    frame: pd.DataFrame = table.set_column(place, "timestamp", time).to_pandas()
    texts = table["properties"].to_pylist()
    properties = [None if text is None else orjson.loads(text) for text in texts]
    frame["properties"] = pd.Series(properties, dtype=object)
    return frame


def item_frame(rows: Sequence[StoredItem]) -> pd.DataFrame:
    """One row an item, by item_id."""
    names = _names(row.properties for row in rows)
    if len(names) > MAX_COLUMNS:
        raise InputError("properties", len(names), f"expected at most {MAX_COLUMNS:,} names")
    index = pd.Index([row.item_id for row in rows], name="item_id", dtype="str")
    columns: dict[str, Any] = {
        "title": pd.Series([row.title for row in rows], index, dtype="str"),
        "categories": pd.Series([row.categories for row in rows], index, dtype=object),
        "price": pd.Series([row.price for row in rows], index, dtype="float64"),
        "image": pd.Series([row.image for row in rows], index, dtype="str"),
        "available": pd.Series([row.available for row in rows], index, dtype="bool"),
        "created_at": _times(np.array([row.created_at_us for row in rows], np.int64)),
        "updated_at": _times(np.array([row.updated_at_us for row in rows], np.int64)),
    }
    for name in names:
        columns[f"properties.{name}"] = [row.properties.get(name) for row in rows]
    return pd.DataFrame(columns, index)


def user_frame(
    found: Mapping[str, Mapping[str, object]], names: Sequence[str] | None
) -> pd.DataFrame:
    """One row a user, by user_id; a column an attribute."""
    known = _names(found.values())
    if names is not None:
        for name in names:
            if name not in known:
                raise unknown("names", name, "an attribute of some user", known)
        known = list(names)
    if len(known) > MAX_COLUMNS:
        problem = f"expected at most {MAX_COLUMNS:,}; say which by names=[…]"
        raise InputError("attributes", len(known), problem)
    columns = {name: [one.get(name) for one in found.values()] for name in known}
    return pd.DataFrame(columns, pd.Index(list(found), name="user_id", dtype="str"))


def sequence_frame(frame: EventFrame, sequences: Sequences) -> pd.DataFrame:
    """One row for each of N sequences, with arrays that share the memory of all."""
    offsets, times = sequences.offsets, sequences.timestamps_us
    item_ids = np.array(frame.item_ids, object)[sequences.items]  # (E,)
    types = np.array(frame.type_names, object)[sequences.event_types]  # (E,)
    moments = times.astype("datetime64[us]")  # (E,)

    def each(values: AnyArray) -> pd.Series:
        parts = np.empty(len(sequences), object)
        for number in range(len(sequences)):
            parts[number] = values[offsets[number] : offsets[number + 1]]
        return pd.Series(parts, dtype=object)

    keys = list(sequences.keys)
    columns = {
        "user_id": pd.Series([key[2:] if key[0] == "u" else None for key in keys], dtype="str"),
        "session_id": pd.Series([key[2:] if key[0] == "s" else None for key in keys], dtype="str"),
        "length": pd.Series(sequences.lengths, dtype="int64"),
        "first_at": _times(times[offsets[:-1]]),
        "last_at": _times(times[offsets[1:] - 1] if len(keys) else times),
        "item_ids": each(item_ids),
        "event_types": each(types),
        "timestamps": each(moments),
        "session_starts": each(sequences.session_starts),
    }
    return pd.DataFrame(columns)


def recommendation_frame(rows: Sequence[tuple[str, int, str, float, str]]) -> pd.DataFrame:
    """One row an item of a user's answer."""
    return _ranked(rows, RECOMMENDED)


def ranked_frame(items: Sequence[RankedItem]) -> pd.DataFrame:
    """One row an item of a list."""
    rows = [
        (one.rank, one.item_id, one.item.title if one.item else None, one.score, one.source)
        for one in items
    ]
    return _ranked(rows, SIMILAR)


def evaluation_frame(done: VersionEvaluation) -> pd.DataFrame:
    """One row a ranking, the best MRR first."""
    frame = pd.DataFrame.from_dict(dict(done.metrics), orient="index")
    frame.index.name = "ranking"
    frame = frame.sort_values("mrr@20", ascending=False, kind="stable")
    frame.attrs = {
        "version": done.version,
        "positions": done.positions,
        "window_from": pd.Timestamp(done.window_from_us, unit="us", tz="UTC"),
        "note": done.note,
    }
    return frame


def _ranked(rows: Sequence[tuple[object, ...]], names: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(list(rows), columns=list(names))
    kinds = {"rank": "int64", "score": "float64"}
    return frame.astype({name: kinds.get(name, "str") for name in names})


def _names(objects: Iterable[Mapping[str, object]]) -> list[str]:
    """The names that any of `objects` has, in order."""
    names: set[str] = set()
    for one in objects:
        names.update(one)
    return sorted(names)


def _times(times_us: Int64Array) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(times_us.astype("datetime64[us]"), tz="UTC")
