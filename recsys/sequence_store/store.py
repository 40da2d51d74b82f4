"""The sequence store: sequence files of the event log, updated by reading only new events.

A first build reads the table in ranges of ids, in several processes, each range a segment; later ones
read from a look-back below the largest id on. Who writes events is waited for before the largest id is
read; the look-back finds what commits late under lower ids where somebody else writes the table.
Users who were erased are taken out of the files, merges are applied when the files are read, and files
that cannot be trusted are built anew. An external table is read in the same way, in
chunks along its order or time.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from recsys.errors import ConflictError, SequenceFileError, StorageUnavailableError
from recsys.events.array_types import BoolArray
from recsys.events.frame import EventFrame, check_types
from recsys.events.identity import hash_texts, user_bucket
from recsys.events.large_arrays import LARGE_EVENTS
from recsys.events.times import DAY_US
from recsys.progress import Say, quiet
from recsys.sequence_store.segment_building import (
    Built,
    MappedRange,
    Range,
    SegmentRows,
    build_in_processes,
    build_mapped_segment,
    build_segment,
    mapped_rows,
    range_rows,
    written,
)
from recsys.sequence_store.segment_frame import segment_frame
from recsys.sequence_store.segments import (
    MANIFEST,
    RENUMBERED,
    Columns,
    Manifest,
    Segment,
    check_segment,
    hashed,
    merge_segments,
    positions_from,
    positions_since,
    read_manifest,
    read_segment,
    renumbered,
    sweep,
    without_events,
    write_manifest,
)
from recsys.storage.engine.database import Database
from recsys.storage.entities import erasure_rows, key_values
from recsys.storage.entities.event_batches import all_aliases, id_span
from recsys.storage.entities.feedback_rows import removed_events_since
from recsys.storage.entities.import_rows import EVERY_SEQUENCE
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.external.external_rows import Chunk, ExternalRows
from recsys.storage.external.mapping import Mapping

CHUNK_IDS = 1_000_000  # ids a segment: what bounds the memory of building
MAX_RANGES = 10_000  # of an update
LOOK_BACK = 50_000  # ids that are read once more
MAX_SEGMENTS = 40
MERGED_ROWS = 4_000_000  # of segments that are merged into one

# What reads ranges of rows, if not this machine: functions that may run anywhere -> what each gives, in
# order.
ReadRanges = Callable[[Sequence[Callable[[], SegmentRows | None]]], Iterator[SegmentRows | None]]


@dataclass(frozen=True)
class Updated:
    """The outcome of an update."""

    new_rows: int
    rows: int  # in all
    rebuilt: bool
    seconds: float


class SequenceStore:
    """The sequence files of one database, or of the table `mapped`, in one folder."""

    def __init__(
        self,
        folder: Path,
        processes: int = 2,
        mapped: ExternalRows | None = None,
        read_ranges: ReadRanges | None = None,
        chunk_ids: int | None = None,
        large_events: int = LARGE_EVENTS,
    ) -> None:
        """`chunk_ids` ids a segment, CHUNK_IDS where not given; frames of more than `large_events` are
        kept in files, not in memory.
        """
        self._folder, self._processes, self._mapped = folder, processes, mapped
        self._read_ranges, self._chunk_ids, self._large = read_ranges, chunk_ids, large_events

    @property
    def is_mapped(self) -> bool:
        """Whether it reads a table of the user's."""
        return self._mapped is not None

    def forget(self) -> None:
        """Delete all sequence files; the next update rebuilds them."""
        with self._locked():
            sweep(self._folder, Manifest(""))
            (self._folder / MANIFEST).unlink(missing_ok=True)

    def update(self, database: Database, say: Say = quiet) -> Updated:
        """Read what is new into the files. Raises ConflictError where another process is at it, and
        StorageUnavailableError.
        """
        started = time.perf_counter()
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            database_id = key_values.database_id(database)
            if self._mapped is not None:
                database_id += f" {self._mapped.mapping.fingerprint}"
            before, items, rebuilt = self._trusted(database, database_id, say)
            manifest = self._take_out(database, before, items)
            manifest = self._read_new(database, manifest, items, say)
            manifest = self._compact(manifest, items)
            sweep(self._folder, manifest)
        seconds = time.perf_counter() - started
        old = 0 if rebuilt else before.rows
        return Updated(manifest.rows - old, manifest.rows, rebuilt, seconds)

    def lags_behind_removals(self, database: Database) -> bool:
        """Whether the files may still hold events of an erased user, or one that was deleted."""
        try:
            manifest, _ = read_manifest(self._folder)
        except SequenceFileError:
            return False  # nothing there that is ever read
        return (
            erasure_rows.removed_since(database, manifest.removals)[0] != manifest.removals
            or self._events_removed(database, manifest)[0] != manifest.removed_events
        )

    def frame(self, database: Database, since_us: int = 0) -> EventFrame:
        """The event frame of all events since `since_us`, by bucket, user, time and position.

        It is made a bucket at a time, so that memory is that of a bucket where there are many. Raises
        SequenceFileError where a file is not the one that was written, TrainingError where the disk
        is full.
        """
        manifest, items = read_manifest(self._folder)
        for segment in manifest.segments:
            check_segment(self._folder, segment)
        merged, kept_in_files = partial(_merged, database), manifest.rows > self._large
        return segment_frame(self._folder, manifest, items, merged, since_us, kept_in_files)

    def _trusted(
        self, database: Database, database_id: str, say: Say
    ) -> tuple[Manifest, list[str], bool]:
        """The manifest if the files are intact and of this database, else an empty one."""
        try:
            manifest, items = read_manifest(self._folder)
            for segment in manifest.segments:
                read_segment(self._folder, segment)  # whole by its looks; hashes wait for `frame`
            _, last = id_span(database)
            if manifest.database_id != database_id or manifest.high_water > max(last, 0):
                raise SequenceFileError("the sequence files are of another database")
            if EVERY_SEQUENCE in erasure_rows.removed_since(database, manifest.removals)[1]:
                raise SequenceFileError("an import was undone")
            if (
                self._mapped is not None
                and manifest.mark
                and self._mapped.lies_behind(manifest.mark)
            ):
                raise SequenceFileError("the mapped table holds less than was read of it")
        except SequenceFileError as error:
            if any(self._folder.glob("*.json")):
                say(f"{error}; they are built anew")
            return Manifest(database_id), [], True
        return manifest, items, False

    def _take_out(self, database: Database, manifest: Manifest, items: list[str]) -> Manifest:
        """Take erased users, and events that were deleted, out of every segment that holds them."""
        last, gone = erasure_rows.removed_since(database, manifest.removals)
        last_event, rows = self._events_removed(database, manifest)
        if (last, last_event) == (manifest.removals, manifest.removed_events):
            return manifest
        is_gone = erasure_rows.removed_test(database, gone)

        def are_gone(columns: Columns) -> BoolArray:
            found: BoolArray = np.isin(columns["positions"], rows)
            return found | is_gone(columns["users"]) if gone else found

        segments, serial = [], manifest.serial
        for segment in manifest.segments:
            left = without_events(self._folder, _name(serial + 1), segment, are_gone)
            serial += left is not None
            segments.append(left or segment)
        segments = [segment for segment in segments if segment.rows]
        changed = replace(
            manifest, segments=segments, serial=serial, removals=last, removed_events=last_event
        )
        return write_manifest(self._folder, changed, items)

    def _events_removed(self, database: Database, manifest: Manifest) -> tuple[int, list[int]]:
        """As `removed_events_since`. Of an external table no single events are deleted here."""
        if self._mapped is not None:
            return manifest.removed_events, []
        with database.connect() as connection:
            return removed_events_since(connection, manifest.removed_events)

    def _read_new(
        self, database: Database, manifest: Manifest, items: list[str], say: Say
    ) -> Manifest:
        mapped = self._mapped
        if mapped is None or mapped.mapping.by_event_id:
            manifest = self._read_own(database, manifest, items, say)
        if mapped is not None:
            manifest = self._read_mapped(database, mapped, manifest, items)
        if manifest.item_count == 0:
            manifest = write_manifest(self._folder, manifest, items)
        return manifest

    def _read_own(
        self, database: Database, manifest: Manifest, items: list[str], say: Say
    ) -> Manifest:
        by_event_id = self._mapped is not None
        try:
            first, last = id_span(database, settled=True)
        except StorageUnavailableError:
            say("somebody writes events at length; ids that come late are looked for next time")
            first, last = id_span(database)
        start = max(first, manifest.high_water - LOOK_BACK + 1) if manifest.high_water else first
        known = positions_from(self._folder, manifest, 0 if by_event_id else start)
        # Ids may lie far apart; then a range of them holds less.
        width = max(self._chunk_ids or CHUNK_IDS, (last + 1 - start) // MAX_RANGES)
        spans = [
            Range(at, min(at + width, last + 1), known, by_event_id)
            for at in range(start, last + 1, width)
        ]
        names = [_name(manifest.serial + 1 + place) for place in range(len(spans))]
        url = database.url.render_as_string(hide_password=False)
        # SQLite's shared files stay where some connection is open; readers cannot make them.
        with database.connect():
            if self._read_ranges is not None and spans:
                found = self._by_reader(names, [partial(range_rows, url, one) for one in spans])
            else:
                work = [(url, self._folder, n, span) for n, span in zip(names, spans, strict=True)]
                build_here = partial(build_segment, database=database)
                found = build_in_processes(build_segment, work, build_here, self._processes)
            for place, built in enumerate(found):
                reached = max(manifest.high_water, spans[place].end - 1)
                manifest = self._take_in(replace(manifest, high_water=reached), built, items)
        return manifest

    def _read_mapped(
        self, database: Database, mapped: ExternalRows, manifest: Manifest, items: list[str]
    ) -> Manifest:
        mapping = mapped.mapping
        last = mapped.end()
        parts = mapped.chunks(manifest.mark or None, last)
        if not parts:
            return manifest
        known = self._known_of(manifest, mapping, parts[0])
        with database.connect() as connection:
            hidden = Tombstones(connection)
        now_us = time.time_ns() // 1_000
        names = [_name(manifest.serial + 1 + place) for place in range(len(parts))]
        ranges = [MappedRange(mapping, chunk, known, hidden, now_us) for chunk in parts]
        marks = [mapping.mark(chunk.end) for chunk in parts[:-1]] + [mapping.mark(last)]
        if mapping.by_event_id:
            # One id may come in two chunks, so each has to know what the one before it held.
            for name, part, mark in zip(names, ranges, marks, strict=True):
                part = part._replace(known=positions_from(self._folder, manifest, 0))
                built = build_mapped_segment(self._folder, name, part, mapped)
                manifest = self._take_in(replace(manifest, mark=mark), built, items)
            return manifest
        if self._read_ranges is not None:
            segments = self._by_reader(names, [partial(mapped_rows, part) for part in ranges])
        else:
            work = [(self._folder, name, part) for name, part in zip(names, ranges, strict=True)]
            build_here = partial(build_mapped_segment, rows=mapped)
            segments = build_in_processes(build_mapped_segment, work, build_here, self._processes)
        for mark, built in zip(marks, segments, strict=True):
            manifest = self._take_in(replace(manifest, mark=mark), built, items)
        return manifest

    def _by_reader(
        self, names: Sequence[str], reads: Sequence[Callable[[], SegmentRows | None]]
    ) -> Iterator[Built]:
        """Segments of what another reader than this machine reads."""
        assert self._read_ranges is not None
        for name, rows in zip(names, self._read_ranges(reads), strict=True):
            yield written(self._folder, name, rows)

    def _take_in(self, manifest: Manifest, built: Built, items: list[str]) -> Manifest:
        """Add a segment, if one was built, to the manifest, and record how far was read."""
        manifest = replace(manifest, serial=manifest.serial + 1)
        if built is not None:
            segment, own_items, own_types = built
            numbers = {item: number for number, item in enumerate(items)}
            # Numbered by name, so that it makes no difference in which order a database reads.
            for item in sorted(own_items):
                numbers.setdefault(item, len(numbers))
            types = dict.fromkeys([*manifest.type_names, *sorted(own_types)])
            check_types(types)
            places = {name: place for place, name in enumerate(types)}
            columns = read_segment(self._folder, segment, "r+")
            renumbered(
                columns,
                np.array([numbers[item] for item in own_items], np.int64),
                np.array([places[name] for name in own_types], np.int64),
            )
            segment = hashed(self._folder, segment, RENUMBERED)
            items[:] = list(numbers)
            segments = [*manifest.segments, segment]
            manifest = replace(manifest, segments=segments, type_names=list(types))
        return write_manifest(self._folder, manifest, items)

    def _known_of(self, manifest: Manifest, mapping: Mapping, first: Chunk) -> np.ndarray:
        """Stored positions of the rows of an external table that are read again."""
        start = first.first  # None: from the table's beginning
        if mapping.identity == "order":
            return positions_from(self._folder, manifest, -(2**63) if start is None else int(start))
        since_us = None if start is None else mapping.time.micros(start)
        # A day more: a local time may be that far from what it is in UTC.
        day_before_us = None if since_us is None else since_us - DAY_US
        return positions_since(self._folder, manifest, day_before_us)

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


def _merged(database: Database) -> dict[int, tuple[int, int]]:
    """Hash of each merged sequence -> hash and bucket of the user it now belongs to."""
    aliases = all_aliases(database)
    sources, owners = hash_texts(list(aliases)), hash_texts(list(aliases.values()))
    buckets = [user_bucket(owner.removeprefix("u:")) for owner in aliases.values()]
    places = zip(owners.tolist(), buckets, strict=True)
    return dict(zip(sources.tolist(), places, strict=True))


def _name(serial: int) -> str:
    return f"segment-{serial:06d}"
