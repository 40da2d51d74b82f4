"""Events of the database -> sequences on disk, kept up to date by reading what is new.

A first build reads the table in ranges of ids, in several processes, each range a segment; later ones
read from a look-back below the largest id on, so that rows which commit late under lower ids are found.
Users who were erased are taken out of the files, merges are applied when the files are read, and files
that cannot be trusted are built anew.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recsys.data.events import Codes, EventFrame, hash_texts, key_hashes
from recsys.data.segments import (
    MANIFEST,
    RENUMBERED,
    Columns,
    Manifest,
    Segment,
    check_segment,
    hashed,
    merge_segments,
    moved,
    read_manifest,
    read_segment,
    renumbered,
    sort_columns,
    sweep,
    without_users,
    write_manifest,
    write_segment,
)
from recsys.errors import ConflictError, SequenceFileError
from recsys.storage import removal_rows
from recsys.storage.database import Database
from recsys.storage.event_reading import STORE_COLUMNS, all_aliases, id_span, read_batches

CHUNK_IDS = 1_000_000  # ids a segment: what bounds the memory of building
MAX_RANGES = 10_000  # of an update
LOOK_BACK = 50_000  # ids that are read once more
MAX_SEGMENTS = 40
MERGED_ROWS = 4_000_000  # of segments that are merged into one

Say = Callable[[str], None]


@dataclass(frozen=True)
class Updated:
    """What an update did."""

    new_rows: int
    rows: int  # in all
    rebuilt: bool
    seconds: float


class SequenceStore:
    """The sequence files of one database in one folder."""

    def __init__(self, folder: Path, processes: int = 2) -> None:
        self._folder, self._processes = folder, processes

    def forget(self) -> None:
        """Delete all files; the next update builds them anew."""
        with self._locked():
            sweep(self._folder, Manifest(""))
            (self._folder / MANIFEST).unlink(missing_ok=True)

    def update(self, database: Database, say: Say = lambda line: None) -> Updated:
        """Read what is new into the files. Raises ConflictError where another process is at it, and
        StorageUnavailableError.
        """
        started = time.perf_counter()
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            database_id = removal_rows.database_id(database)
            before, items, rebuilt = self._trusted(database, database_id, say)
            manifest = self._take_out(database, before, items)
            manifest = self._read_new(database, manifest, items)
            manifest = self._compact(manifest, items)
            sweep(self._folder, manifest)
        seconds = time.perf_counter() - started
        old = 0 if rebuilt else before.rows
        return Updated(manifest.rows - old, manifest.rows, rebuilt, seconds)

    def lags_behind_removals(self, database: Database) -> bool:
        """Whether the files may hold somebody who was erased."""
        try:
            manifest, _ = read_manifest(self._folder)
        except SequenceFileError:
            return False  # nothing there that is ever read
        return removal_rows.removed_since(database, manifest.removals)[0] != manifest.removals

    def frame(self, database: Database, since_us: int = 0) -> EventFrame:
        """All events since `since_us`, users in an order that does not depend on how they were read.

        Raises SequenceFileError where a file is not the one that was written.
        """
        manifest, items = read_manifest(self._folder)
        parts: list[Columns] = []
        for segment in manifest.segments:
            check_segment(self._folder, segment)
            columns = read_segment(self._folder, segment)
            kept = columns["timestamps_us"] >= since_us
            whole = bool(kept.all())
            parts.append(
                columns if whole else {name: values[kept] for name, values in columns.items()}
            )

        def joined(name: str) -> np.ndarray:
            values = [part[name] for part in parts]
            return np.concatenate(values) if values else np.empty(0, np.int64)

        aliases = all_aliases(database)
        old, new = hash_texts(list(aliases)), hash_texts(list(aliases.values()))
        merged = dict(zip(old.tolist(), new.tolist(), strict=True))
        hashes, users = np.unique(
            moved(joined("users").astype(np.uint64), merged), return_inverse=True
        )
        return EventFrame(
            users=users.astype(np.int32),
            items=joined("items").astype(np.int32),
            event_types=joined("event_types").astype(np.int16),
            sessions=joined("sessions").astype(np.uint64),
            timestamps_us=joined("timestamps_us").astype(np.int64),
            positions=joined("positions").astype(np.int64),
            user_keys=[f"#{number:016x}" for number in hashes.tolist()],
            item_ids=items,
            type_names=manifest.type_names,
        )

    def _trusted(
        self, database: Database, database_id: str, say: Say
    ) -> tuple[Manifest, list[str], bool]:
        """The files as they are if they are sound and of this database, else an empty start."""
        try:
            manifest, items = read_manifest(self._folder)
            for segment in manifest.segments:
                read_segment(self._folder, segment)  # whole by its looks; hashes wait for `frame`
            _, last = id_span(database)
            if manifest.database_id != database_id or manifest.high_water > last:
                raise SequenceFileError("the sequence files are of another database")
        except SequenceFileError as error:
            if any(self._folder.glob("*.json")):
                say(f"{error}; they are built anew")
            return Manifest(database_id), [], True
        return manifest, items, False

    def _take_out(self, database: Database, manifest: Manifest, items: list[str]) -> Manifest:
        """Take erased users out of every segment that holds them."""
        last, gone = removal_rows.removed_since(database, manifest.removals)
        if last == manifest.removals:
            return manifest
        hashes = np.array(gone, np.uint64)
        segments, serial = [], manifest.serial
        for segment in manifest.segments:
            left = without_users(self._folder, _name(serial + 1), segment, hashes)
            serial += left is not None
            segments.append(left or segment)
        segments = [segment for segment in segments if segment.rows]
        changed = replace(manifest, segments=segments, serial=serial, removals=last)
        return write_manifest(self._folder, changed, items)

    def _read_new(self, database: Database, manifest: Manifest, items: list[str]) -> Manifest:
        first, last = id_span(database)
        start = max(first, manifest.high_water - LOOK_BACK + 1) if manifest.high_water else first
        known = self._known(manifest, start)
        # Ids may lie far apart; then a range of them holds less.
        width = max(CHUNK_IDS, (last + 1 - start) // MAX_RANGES)
        ranges = [(at, min(at + width, last + 1)) for at in range(start, last + 1, width)]
        numbers = {item: number for number, item in enumerate(items)}
        names = [_name(manifest.serial + 1 + place) for place in range(len(ranges))]
        for place, made in enumerate(self._made(database, ranges, names, known)):
            end = ranges[place][1] - 1
            reached = replace(
                manifest,
                high_water=max(manifest.high_water, end),
                serial=manifest.serial + 1,
            )
            if made is not None:
                segment, own_items, own_types = made
                to_items = [numbers.setdefault(item, len(numbers)) for item in own_items]
                types = dict.fromkeys([*manifest.type_names, *own_types])
                to_types = [list(types).index(name) for name in own_types]
                columns = read_segment(self._folder, segment, "r+")
                renumbered(columns, np.array(to_items, np.int64), np.array(to_types, np.int64))
                segment = hashed(self._folder, segment, RENUMBERED)
                items[:] = list(numbers)
                reached = replace(
                    reached, segments=[*manifest.segments, segment], type_names=list(types)
                )
            manifest = write_manifest(self._folder, reached, items)
        if not ranges and manifest.item_count == 0:
            manifest = write_manifest(self._folder, manifest, items)
        return manifest

    def _made(
        self,
        database: Database,
        ranges: list[tuple[int, int]],
        names: list[str],
        known: np.ndarray,
    ) -> Iterator[tuple[Segment, list[str], list[str]] | None]:
        url = database.url.render_as_string(hide_password=False)
        work = [
            (url, self._folder, name, *span, known)
            for name, span in zip(names, ranges, strict=True)
        ]
        if len(work) < 2 or self._processes < 2:
            for one in work:
                yield make_segment(*one, database=database)
            return
        context = multiprocessing.get_context("spawn")
        # SQLite's shared files stay where some connection is open; readers cannot make them.
        with (
            database.connect(),
            ProcessPoolExecutor(self._processes, mp_context=context) as pool,
        ):
            yield from pool.map(_make_segment, work)

    def _known(self, manifest: Manifest, start: int) -> np.ndarray:
        """Positions from `start` on that the files hold already."""
        found = [np.empty(0, np.int64)]
        for segment in manifest.segments:
            if segment.last_position >= start:
                positions = read_segment(self._folder, segment)["positions"]
                found.append(positions[positions >= start])
        return np.sort(np.concatenate(found))

    def _compact(self, manifest: Manifest, items: list[str]) -> Manifest:
        """Merge the smallest segments where there are many."""
        if len(manifest.segments) <= MAX_SEGMENTS:
            return manifest
        by_size = sorted(manifest.segments, key=lambda segment: segment.rows)
        chosen: list[Segment] = []
        for segment in by_size[: MAX_SEGMENTS // 2]:
            if sum(one.rows for one in chosen) + segment.rows <= MERGED_ROWS or len(chosen) < 2:
                chosen.append(segment)
        merged = merge_segments(self._folder, _name(manifest.serial + 1), chosen)
        left = [segment for segment in manifest.segments if segment not in chosen]
        changed = replace(manifest, segments=[*left, merged], serial=manifest.serial + 1)
        return write_manifest(self._folder, changed, items)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConflictError(
                    "another process brings the sequence files up to date"
                ) from None
            yield


def make_segment(
    url: str,
    folder: Path,
    name: str,
    first: int,
    end: int,
    known: np.ndarray,
    database: Database | None = None,
) -> tuple[Segment, list[str], list[str]] | None:
    """Rows with ids in [first, end) as a segment under numbers of its own, and what those stand for.

    A pure function of the rows: made again it gives the same files. None where there is no new row.
    """
    own = database or Database(url)
    items, types = Codes(), Codes()
    parts: list[Columns] = []
    buckets: list[np.ndarray] = []
    for batch in read_batches(own, STORE_COLUMNS, ids=(first, end)):
        positions = batch.column("position").to_numpy()
        fresh = ~np.isin(positions, known) if len(known) else np.ones(len(positions), np.bool_)
        users, sessions = batch.column("user_id"), batch.column("session_id")
        hashes = key_hashes(users, "u:")
        anonymous = hashes == 0
        session_keys = key_hashes(sessions)
        if anonymous.any():
            hashes = np.where(anonymous, key_hashes(sessions, "s:"), hashes)
        columns: Columns = {
            "users": hashes,
            "items": items.encode(batch.column("item_id")),
            "event_types": types.encode(batch.column("event_type")),
            "sessions": session_keys,
            "timestamps_us": batch.column("timestamp_us").to_numpy(),
            "positions": positions,
        }
        parts.append({column: values[fresh] for column, values in columns.items()})
        buckets.append(batch.column("user_bucket").to_numpy()[fresh])
    if database is None:
        own.close()
    if not parts or not sum(len(part["users"]) for part in parts):
        return None
    joined = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
    ordered, offsets = sort_columns(joined, np.concatenate(buckets).astype(np.int64))
    return write_segment(folder, name, ordered, offsets), list(items.codes), list(types.codes)


def _make_segment(
    work: tuple[str, Path, str, int, int, np.ndarray],
) -> tuple[Segment, list[str], list[str]] | None:
    return make_segment(*work)


def _name(serial: int) -> str:
    return f"segment-{serial:06d}"
