"""Logs to compare rankers on, read from files without a database: two session files, or one log.

Protocol of session files, as the research code of the field has it: the vocabulary is that of the
training file, items it does not hold are removed from the test file and then sessions of one event,
every further event is a position, the full catalogue is ranked, ties count against the ranking.
Validation is the newest part of the training file; nothing is chosen by the test file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from recsys.config import Settings
from recsys.errors import InputError
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.training.compare import ComparisonData
from recsys.training.event_log import make_log

FILE_ROWS = 2**40  # more than a file has, so that one file's rows come after those of the other


def read_frame(paths: Sequence[Path], options: ReadOptions, now_us: int) -> tuple[EventFrame, int]:
    """Files, one after the other, as an event frame, and how many of their rows were left out."""
    builder = EventFrameBuilder()
    left_out = found = 0
    for number, path in enumerate(paths):
        for chunk in read_events(path, options, now_us):
            left_out += len(chunk.rejections) + chunk.skipped
            events = chunk.events
            if events.num_rows:
                at = events.schema.get_field_index("position")
                places = pc.add(events["position"], number * FILE_ROWS)
                builder.append(events.set_column(at, events.schema.field(at), places))
            found += events.num_rows
    if found == 0:
        raise InputError("path", ", ".join(map(str, paths)), "no row of the file is an event")
    return builder.build(), left_out


def session_files(
    train: Sequence[Path],
    test: Sequence[Path],
    options: ReadOptions,
    settings: Settings,
    now_us: int,
) -> ComparisonData:
    """Session files to train on, and others to rank."""
    log = make_log(read_frame(train, options, now_us)[0], settings)
    other = make_log(read_frame(test, options, now_us)[0], settings)
    return ComparisonData(log, other, int(log.sequences.timestamps_us.max()) + 1)


def cut_log(
    paths: Sequence[Path], cut_us: int, options: ReadOptions, settings: Settings, now_us: int
) -> ComparisonData:
    """One log; everything before `cut_us` trains and is context."""
    return ComparisonData(make_log(read_frame(paths, options, now_us)[0], settings), None, cut_us)
