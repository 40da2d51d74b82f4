"""Segments of the sequence files: columns on disk, with stable numbers for items and event types.

A segment is a folder of NumPy files, one a column, its rows sorted by (bucket, user, time, position), so
that a bucket is a slice of each. `manifest.json` names the segments with the SHA-256 of every file; it
is replaced whole, so that a build killed anywhere goes on from the last segment it lists. Users are
64-bit hashes: training asks only which events are of one user.

Legend: E events of a segment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import orjson

from recsys.errors import SequenceFileError
from recsys.events.array_types import AnyArray, BoolArray, Int64Array, UInt64Array
from recsys.events.identity import USER_BUCKETS

FORMAT = 2
MANIFEST = "manifest.json"
DTYPES: dict[str, type[np.generic]] = {
    "users": np.uint64,  # a hash of the sequence's key
    "items": np.int32,  # places in the manifest's item ids
    "event_types": np.int16,  # places in the manifest's type names
    "sessions": np.uint64,
    "timestamps_us": np.int64,
    "positions": np.int64,
}
RENUMBERED = ("items", "event_types")  # whose numbers are a segment's own until they are replaced
Columns = dict[str, AnyArray]


@dataclass(frozen=True)
class Segment:
    """One folder of column files, each (E,)."""

    name: str
    rows: int
    offsets: list[int]  # (USER_BUCKETS + 1,) where each bucket begins
    sha256: dict[str, str]  # of each column's file
    last_position: int = -1  # the largest
    last_us: int = 2**63 - 1  # the newest time

    def row_buckets(self) -> Int64Array:
        """The bucket of each row; (E,)."""
        return np.repeat(np.arange(USER_BUCKETS), np.diff(self.offsets))

    def bucket(self, folder: Path, number: int) -> Columns:
        """Memory-map the columns of one bucket."""
        part = slice(self.offsets[number], self.offsets[number + 1])
        return {name: values[part] for name, values in read_segment(folder, self).items()}


@dataclass(frozen=True)
class Manifest:
    """The manifest: the segments, and up to where the log was read."""

    database_id: str  # whose rows these are
    high_water: int = 0  # the largest position that was read
    removals: int = 0  # the last removal that was carried out
    removed_events: int = 0  # the last of a single event
    item_count: int = 0
    items_sha256: str = ""
    mark: str = ""  # how far an external table was read
    type_names: list[str] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    serial: int = 0  # of the segment made last

    @property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments)


def sort_columns(columns: Columns, buckets: Int64Array) -> tuple[Columns, list[int]]:
    """The columns (E,) in a segment's order, and the buckets' offsets; buckets (E,)."""
    keys = (columns["positions"], columns["timestamps_us"], columns["users"], buckets)
    order = np.lexsort(keys)
    offsets = np.searchsorted(buckets[order], np.arange(USER_BUCKETS + 1))
    return {name: values[order] for name, values in columns.items()}, offsets.tolist()


def write_segment(folder: Path, name: str, columns: Columns, offsets: list[int]) -> Segment:
    """Write sorted columns as a segment, which takes effect once a manifest names it."""
    part = folder / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for column, dtype in DTYPES.items():
        np.save(part / f"{column}.npy", columns[column].astype(dtype, copy=False))
    shutil.rmtree(folder / name, ignore_errors=True)
    part.rename(folder / name)
    last = int(columns["positions"].max(initial=-1))
    newest = int(columns["timestamps_us"].max(initial=0))
    return hashed(folder, Segment(name, len(columns["users"]), offsets, {}, last, newest), DTYPES)


def hashed(folder: Path, segment: Segment, columns: Iterable[str]) -> Segment:
    """The segment with the SHA-256 of the files of `columns` as they are now."""
    sums = {column: _sha256(folder / segment.name / f"{column}.npy") for column in columns}
    return replace(segment, sha256={**segment.sha256, **sums})


def read_segment(folder: Path, segment: Segment, mode: Literal["r", "r+"] = "r") -> Columns:
    """Memory-map the columns of a segment. Raises SequenceFileError where a file is missing or damaged."""
    found = {}
    for column, dtype in DTYPES.items():
        try:
            path = folder / segment.name / f"{column}.npy"
            values = np.load(path, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError):
            raise SequenceFileError(f"segment {segment.name}: {column} cannot be read") from None
        if values.dtype != dtype or values.shape != (segment.rows,):
            raise SequenceFileError(f"segment {segment.name}: {column} is of another shape or type")
        found[column] = values
    return found


def check_segment(folder: Path, segment: Segment) -> None:
    """Verify the SHA-256 of a segment's files. Raises SequenceFileError where one was changed."""
    for column, wanted in segment.sha256.items():
        path = folder / segment.name / f"{column}.npy"
        if column not in DTYPES or not path.is_file() or _sha256(path) != wanted:
            raise SequenceFileError(f"segment {segment.name}: {column} was changed")


def merge_segments(folder: Path, name: str, parts: Sequence[Segment]) -> Segment:
    """Merge segments into one."""
    columns = [read_segment(folder, part) for part in parts]
    joined = {c: np.concatenate([one[c] for one in columns]) for c in DTYPES}
    buckets = np.concatenate([part.row_buckets() for part in parts])
    return write_segment(folder, name, *sort_columns(joined, buckets))


def without_events(
    folder: Path, name: str, segment: Segment, are_gone: Callable[[Columns], BoolArray]
) -> Segment | None:
    """The segment as `name`, without the events (E,) that are gone; None where it holds none."""
    columns = read_segment(folder, segment)
    kept = ~are_gone(columns)
    if kept.all():
        return None
    buckets = segment.row_buckets()[kept]
    left = {column: values[kept] for column, values in columns.items()}
    return write_segment(folder, name, *sort_columns(left, buckets))


def read_manifest(folder: Path) -> tuple[Manifest, list[str]]:
    """Read the manifest and the item ids. Raises SequenceFileError where either is missing or damaged."""
    try:
        plain = orjson.loads((folder / MANIFEST).read_bytes())
        if plain.pop("format") != FORMAT:
            raise SequenceFileError("the sequence files are of another format")
        segments = [Segment(**segment) for segment in plain.pop("segments")]
        manifest = Manifest(**plain, segments=segments)
        stored = (folder / _items_name(manifest.item_count)).read_bytes()
        items = orjson.loads(stored)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        raise SequenceFileError("the sequence files' manifest cannot be read") from None
    if hashlib.sha256(stored).hexdigest() != manifest.items_sha256:
        raise SequenceFileError("the sequence files' items were changed")
    return manifest, items


def write_manifest(folder: Path, manifest: Manifest, items: Sequence[str]) -> Manifest:
    """Replace the manifest atomically, once all of its segments are written."""
    stored = orjson.dumps(list(items))
    digest = hashlib.sha256(stored).hexdigest()
    manifest = replace(manifest, item_count=len(items), items_sha256=digest)
    _replace(folder / _items_name(len(items)), stored)
    _replace(folder / MANIFEST, orjson.dumps({"format": FORMAT, **asdict(manifest)}))
    return manifest


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove files that the manifest does not name: merged segments, and remains of a killed build."""
    named = {segment.name for segment in manifest.segments}
    named |= {MANIFEST, _items_name(manifest.item_count), "lock"}
    for entry in folder.iterdir():
        if entry.name not in named:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def renumbered(columns: Columns, items: Int64Array, types: Int64Array) -> None:
    """Replace a segment's own item and type numbers by the manifest's, in its files."""
    columns["items"][:] = items[columns["items"]]
    columns["event_types"][:] = types[columns["event_types"]]
    for name in RENUMBERED:
        values = columns[name]
        assert isinstance(values, np.memmap)
        values.flush()


def positions_from(folder: Path, manifest: Manifest, start: int) -> Int64Array:
    """Stored positions from `start` on, sorted."""
    found = [np.empty(0, np.int64)]
    for segment in manifest.segments:
        if segment.last_position >= start:
            positions = read_segment(folder, segment)["positions"]
            found.append(positions[positions >= start])
    return np.sort(np.concatenate(found))


def positions_since(folder: Path, manifest: Manifest, since_us: int | None) -> Int64Array:
    """Stored positions of segments with events at or after `since_us`, sorted; None: of all segments."""
    late = [
        segment for segment in manifest.segments if since_us is None or segment.last_us >= since_us
    ]
    found = [read_segment(folder, segment)["positions"] for segment in late]
    found.append(np.empty(0, np.int64))
    return np.sort(np.concatenate(found))


def moved(users: UInt64Array, merged: Mapping[int, int]) -> UInt64Array:
    """Replace the hashes of merged users (E,) by those of their owners."""
    if not merged:
        return users
    sources = np.array(sorted(merged), np.uint64)
    targets = np.array([merged[int(source)] for source in sources], np.uint64)
    places = np.minimum(np.searchsorted(sources, users), len(sources) - 1)
    return np.where(sources[places] == users, targets[places], users)


def _items_name(count: int) -> str:
    return f"items-{count}.json"


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
