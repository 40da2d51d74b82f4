"""Database rows -> one segment of the sequence files: a range of event ids, or a chunk of an external table.

Functions of the rows alone, so that any process or cluster may call them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa

from recsys.errors import ConfigError, TrainingError
from recsys.events.array_types import Int64Array, UInt64Array
from recsys.events.frame import Codes
from recsys.events.identity import USER_BUCKETS, hash_texts, key_hashes, mixed, positions_of
from recsys.sequence_store.segments import Columns, Segment, sort_columns, write_segment
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_batches import STORE_COLUMNS, read_batches
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.external.external_rows import Chunk, ExternalRows
from recsys.storage.external.mapping import Mapping

BLOCK_ROWS = 500_000  # whose texts are held at once
Built = tuple[Segment, list[str], list[str]] | None  # a segment, its item ids and type names


class Range(NamedTuple):
    """Event ids [first, end), without the rows whose positions are `known`."""

    first: int
    end: int
    known: Int64Array
    by_event_id: bool = False  # whether a row's position is told by its event id


class MappedRange(NamedTuple):
    """A chunk of an external table, of which rows at the positions `known` are left out."""

    mapping: Mapping
    chunk: Chunk
    known: Int64Array
    hidden: Tombstones  # who was erased
    now_us: int


class SegmentRows(NamedTuple):
    """New rows in a segment's order, with item and type numbers of the segment's own."""

    columns: Columns
    offsets: list[int]  # where each bucket begins
    item_ids: list[str]
    type_names: list[str]


def range_rows(url: str, span: Range, database: Database | None = None) -> SegmentRows | None:
    """Read the new rows of a range of ids; None where there is none."""
    own = database or Database(url)
    columns = f"{STORE_COLUMNS}, event_id" if span.by_event_id else STORE_COLUMNS
    identity = "event_id" if span.by_event_id else "order"
    batches = read_batches(own, columns, ids=(span.first, span.end), alone=database is None)
    rows = _rows(batches, identity, span.known)
    if database is None:
        own.close()
    return rows


def build_segment(
    url: str, folder: Path, name: str, span: Range, database: Database | None = None
) -> Built:
    """Write the new rows of a range as a segment; repeating it writes the same files."""
    return written(folder, name, range_rows(url, span, database))


def mapped_rows(part: MappedRange, rows: ExternalRows | None = None) -> SegmentRows | None:
    """Read the new rows of a chunk of an external table; None where there is none.

    Raises ConfigError where its order column is not unique.
    """
    mapping = part.mapping
    own = rows or ExternalRows(mapping)
    batches = own.batches(part.now_us, part.chunk, hidden=part.hidden)
    try:
        return _rows(batches, mapping.identity, part.known)
    except _NotUniqueError as error:
        problem = f"{error.args[0]} stands in more than one row; expected a unique column"
        order = mapping.columns["order"].name
        raise ConfigError("events.order_column", order, problem) from None


def build_mapped_segment(
    folder: Path, name: str, part: MappedRange, rows: ExternalRows | None = None
) -> Built:
    """Write the new rows of a chunk of an external table as a segment. Raises as `mapped_rows`."""
    return written(folder, name, mapped_rows(part, rows))


def build_in_processes(
    build: Callable[..., Built],
    work: Sequence[tuple[Any, ...]],
    build_here: Callable[..., Built],
    processes: int,
) -> Iterator[Built]:
    """Build segments in the order of `work`, which holds the arguments of each.

    By `build` in other processes of this machine, or by `build_here` in this one where there is
    little to do or `processes` is 1. Raises TrainingError where a process is lost.
    """
    if len(work) < 2 or processes < 2:
        yield from starmap(build_here, work)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            yield from pool.map(build, *zip(*work, strict=True))
    except BrokenProcessPool:
        raise TrainingError("a process that read events was lost; run it again") from None


class _NotUniqueError(ValueError):
    """Two rows have the same position."""


def written(folder: Path, name: str, rows: SegmentRows | None) -> Built:
    """Write rows as a segment of `folder`."""
    if rows is None:
        return None
    segment = write_segment(folder, name, rows.columns, rows.offsets)
    return segment, rows.item_ids, rows.type_names


def _rows(
    batches: Iterable[pa.RecordBatch], identity: str, known: Int64Array
) -> SegmentRows | None:
    items, types = Codes(), Codes()
    parts: list[Columns] = []
    for block in _blocks(batches):
        hashes, buckets = _owners(block)
        session_keys = key_hashes(block.column("session_id"))
        times = block.column("timestamp_us").to_numpy()
        positions = block.column("position").to_numpy()
        if identity != "order":
            said = [key_hashes(block.column(column)) for column in ("item_id", "event_type")]
            content = mixed(hashes, session_keys, *said, times.view(np.uint64))
            if identity == "event_id":
                ids = key_hashes(block.column("event_id"))
                content = np.where(ids == 0, content, mixed(hashes, ids))
            positions = content.view(np.int64)
        parts.append(
            {
                "users": hashes,
                "items": items.encode(block.column("item_id")),
                "event_types": types.encode(block.column("event_type")),
                "sessions": session_keys,
                "timestamps_us": times,
                "positions": positions,
                "buckets": buckets,
            }
        )
    if not parts:
        return None
    joined = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
    del parts
    positions, bucket = joined["positions"], joined.pop("buckets")
    if identity != "order":
        repeats = identity == "content"
        positions = joined["positions"] = positions_of(positions.view(np.uint64), repeats=repeats)
    fresh = ~np.isin(positions, known) if len(known) else np.ones(len(positions), np.bool_)
    first = np.sort(positions)
    if (first[1:] == first[:-1]).any():
        if identity != "event_id":
            twice = first[1:][first[1:] == first[:-1]]
            raise _NotUniqueError(int(twice[0]))
        once = np.zeros(len(positions), np.bool_)
        once[np.unique(positions, return_index=True)[1]] = True
        fresh &= once
    if not fresh.any():
        return None
    if not fresh.all():
        joined = {column: values[fresh] for column, values in joined.items()}
        bucket = bucket[fresh]
    ordered, offsets = sort_columns(joined, bucket)
    return SegmentRows(ordered, offsets, list(items.codes), list(types.codes))


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join batches into few large ones, so that each id of a block is hashed once."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= BLOCK_ROWS:
            yield from pa.Table.from_batches(held).combine_chunks().to_batches()
            held = []
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def _owners(batch: pa.RecordBatch) -> tuple[UInt64Array, Int64Array]:
    """Hash and bucket of each row's sequence key; the bucket as stored, or else from the owner's id."""
    users, sessions = batch.column("user_id"), batch.column("session_id")
    stored = "user_bucket" in batch.schema.names
    hashes = np.zeros(batch.num_rows, np.uint64)
    buckets = np.zeros(batch.num_rows, np.int64)
    for column, prefix in ((users, "u:"), (sessions, "s:")):
        fits = hashes == 0  # a session's key where there is no user
        if not fits.any():
            break
        encoded = column.dictionary_encode()
        owners = encoded.dictionary.to_pylist()
        places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        keys = np.append(hash_texts([prefix + owner for owner in owners]), np.uint64(0))
        hashes = np.where(fits, keys[places], hashes)
        if not stored:
            of = np.fromiter((crc32(owner.encode()) for owner in owners), np.int64, len(owners))
            buckets = np.where(fits, np.append(of % USER_BUCKETS, 0)[places], buckets)
    if stored:
        buckets = batch.column("user_bucket").to_numpy()
    return hashes, buckets
