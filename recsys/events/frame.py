"""The event frame: events as integer-coded columns.

Legend: E events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.events.array_types import AnyArray, Int16Array, Int32Array, Int64Array, UInt64Array
from recsys.events.identity import key_hashes


@dataclass(frozen=True)
class EventFrame:
    """E events as parallel integer columns, in reading order, with the texts they stand for."""

    users: Int32Array  # (E,) codes into user_keys
    items: Int32Array  # (E,) codes into item_ids
    event_types: Int16Array  # (E,) codes into type_names
    sessions: UInt64Array  # (E,) a 64-bit hash of the session id, 0 where there is none
    timestamps_us: Int64Array  # (E,) µs since 1970, UTC
    positions: Int64Array  # (E,) place in the source; unique; breaks ties in time
    user_keys: Sequence[str]  # 'u:<user_id>' or 's:<session_id>'
    item_ids: list[str]
    type_names: list[str]
    ordered: bool = False  # by user, time and position already
    folder: Path | None = None  # where arrays made from these go; None = into memory

    def __len__(self) -> int:
        return len(self.users)


MAX_TYPES = 2**15 - 1  # of events: more than a code of two bytes can tell apart


def check_types(names: Sized) -> None:
    """Raises InputError where there are more event types than codes for them."""
    if len(names) > MAX_TYPES:
        expected = f"expected at most {MAX_TYPES:,} types; is another column taken for the type?"
        raise InputError("event_type", f"{len(names):,} different ones", expected)


@dataclass
class Codes:
    """Integer codes of texts, in order of first appearance."""

    codes: dict[str, int] = field(default_factory=dict)

    def encode(self, texts: pa.Array, prefix: str = "") -> Int32Array:
        """Codes of `texts` (n,), with `prefix` before each text; null becomes -1."""
        encoded = texts.dictionary_encode()
        codes = self.codes
        table = np.fromiter(
            (
                codes.setdefault(prefix + text, len(codes))
                for text in encoded.dictionary.to_pylist()
            ),
            dtype=np.int32,
        )
        indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(table, np.int32(-1))[indices]


class EventFrameBuilder:
    """Builds an EventFrame from record batches so that no text column is ever held whole.

    Each batch needs the columns user_id, session_id, item_id, event_type, timestamp_us, and
    `position` (int64); see EVENT_SCHEMA. Peak memory is the codes (about 34 bytes an event) and
    one batch.
    """

    def __init__(self) -> None:
        self._users, self._items, self._types = Codes(), Codes(), Codes()
        self._parts: dict[str, list[AnyArray]] = {
            name: []
            for name in ("users", "items", "event_types", "sessions", "timestamps_us", "positions")
        }

    def append(self, batch: pa.RecordBatch | pa.Table) -> None:
        columns = {name: _whole(batch.column(name)) for name in batch.schema.names}
        users = self._users.encode(columns["user_id"], "u:")
        anonymous = users < 0
        if anonymous.any():
            keys = columns["session_id"].filter(pa.array(anonymous))
            users[anonymous] = self._users.encode(keys, "s:")
        parts = self._parts
        parts["users"].append(users)
        parts["items"].append(self._items.encode(columns["item_id"]))
        types = self._types.encode(columns["event_type"])
        check_types(self._types.codes)
        parts["event_types"].append(types.astype(np.int16))
        parts["sessions"].append(key_hashes(columns["session_id"]))
        parts["timestamps_us"].append(columns["timestamp_us"].to_numpy())
        parts["positions"].append(columns["position"].to_numpy())

    def build(self, merged: Mapping[str, str] | None = None) -> EventFrame:
        """The frame. `merged` maps a sequence key to the one that it now belongs to."""
        keys = list(self._users.codes)
        if merged:
            final = Codes()
            owners = [merged.get(key, key) for key in keys]
            table = np.array(
                [final.codes.setdefault(k, len(final.codes)) for k in owners], np.int32
            )
            self._parts["users"] = [table[part] for part in self._parts["users"]]
            keys = list(final.codes)

        def joined(name: str, dtype: type[np.generic]) -> NDArray[np.generic]:
            parts = self._parts.pop(name)
            return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)

        return EventFrame(
            users=joined("users", np.int32),  # type: ignore[arg-type]
            items=joined("items", np.int32),  # type: ignore[arg-type]
            event_types=joined("event_types", np.int16),  # type: ignore[arg-type]
            sessions=joined("sessions", np.uint64),  # type: ignore[arg-type]
            timestamps_us=joined("timestamps_us", np.int64),  # type: ignore[arg-type]
            positions=joined("positions", np.int64),  # type: ignore[arg-type]
            user_keys=keys,
            item_ids=list(self._items.codes),
            type_names=list(self._types.codes),
        )


def frame_from_table(table: pa.Table) -> EventFrame:
    """The event frame of an event table (EVENT_SCHEMA), the row number as source position."""
    builder = EventFrameBuilder()
    first = 0
    for batch in table.to_batches(max_chunksize=262_144):
        positions = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
        builder.append(batch.append_column("position", positions))
        first += batch.num_rows
    return builder.build()


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
