"""Segments on disk -> an event frame, bucket by bucket; merged sequences count as their owner's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from recsys.events.frame import EventFrame
from recsys.events.identity import USER_BUCKETS
from recsys.events.large_arrays import HashedKeys, allocate, chunks
from recsys.sequence_store.segments import DTYPES, Columns, Manifest, moved, read_segment

FRAME_DTYPES = {**DTYPES, "users": np.int32}

# Hash of a merged sequence -> hash and bucket of the user it now belongs to.
Merged = Mapping[int, tuple[int, int]]


def segment_frame(
    folder: Path,
    manifest: Manifest,
    items: list[str],
    merged: Callable[[], Merged],
    since_us: int,
    kept_in_files: bool,
) -> EventFrame:
    """Build the event frame of all events since `since_us`, ordered by bucket, user, time and position.

    `items` are the item ids in the manifest's numbers; `merged` is called once memory is allocated.
    Memory is that of a bucket where the frame is `kept_in_files` of the folder. Raises
    SequenceFileError, and TrainingError where the disk is full.
    """
    home = folder if kept_in_files else None
    rows = sum(
        int(np.count_nonzero(times[part] >= since_us))
        for times in (
            read_segment(folder, segment)["timestamps_us"] for segment in manifest.segments
        )
        for part in chunks(len(times))
    )
    columns = {name: allocate(rows, dtype, home) for name, dtype in FRAME_DTYPES.items()}
    hashes: list[np.ndarray] = []
    at = users = 0
    for bucket in _buckets(folder, manifest, merged(), since_us):
        own, codes = np.unique(bucket["users"], return_inverse=True)
        end = at + len(codes)
        for name, values in {**bucket, "users": codes + users}.items():
            columns[name][at:end] = values
        hashes.append(own)
        at, users = end, users + len(own)
    return EventFrame(
        **columns,
        user_keys=HashedKeys(np.concatenate(hashes) if hashes else np.empty(0, np.uint64)),
        item_ids=items,
        type_names=manifest.type_names,
        ordered=True,
        folder=home,
    )


def _buckets(folder: Path, manifest: Manifest, merged: Merged, since_us: int) -> Iterator[Columns]:
    """The events of each bucket since `since_us`, by user, time and position."""
    sources = np.array(sorted(merged), np.uint64)
    owners = {source: owner for source, (owner, _) in merged.items()}
    home = np.array([merged[int(source)][1] for source in sources], np.int64)
    strays: dict[int, list[Columns]] = {}
    for segment in manifest.segments if merged else ():
        columns = read_segment(folder, segment)
        for part in chunks(segment.rows):
            away = np.flatnonzero(np.isin(columns["users"][part], sources)) + part.start
            found = {name: values[away] for name, values in columns.items()}
            numbers = home[np.searchsorted(sources, found["users"])]
            found["users"] = moved(found["users"], owners)
            for number in np.unique(numbers).tolist():
                own = {name: values[numbers == number] for name, values in found.items()}
                strays.setdefault(number, []).append(own)
    for number in range(USER_BUCKETS):
        parts = [segment.bucket(folder, number) for segment in manifest.segments]
        if merged:
            stay = [~np.isin(part["users"], sources) for part in parts]
            parts = [
                {name: values[mask] for name, values in part.items()}
                for part, mask in zip(parts, stay, strict=True)
            ]
        parts += strays.get(number, [])
        if not parts:
            continue
        joined = {name: np.concatenate([part[name] for part in parts]) for name in DTYPES}
        kept = joined["timestamps_us"] >= since_us
        if not kept.all():
            joined = {name: values[kept] for name, values in joined.items()}
        order = np.lexsort((joined["positions"], joined["timestamps_us"], joined["users"]))
        yield {name: values[order] for name, values in joined.items()}
