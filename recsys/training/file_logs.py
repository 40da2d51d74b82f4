"""Logs to compare rankers on, read from files without a database: two session files, or one log.

Protocol of session files, as the research code of the field has it: the vocabulary is that of the
training file, items it does not hold are removed from the test file and then sessions of one event,
every further event is a position, the full catalogue is ranked, ties count against the ranking.
Validation is the newest part of the training file; nothing is chosen by the test file.
"""

from __future__ import annotations

from pathlib import Path

from recsys.config import Settings
from recsys.errors import InputError
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.training.compare import ComparisonData
from recsys.training.event_log import make_log


def read_frame(path: Path, options: ReadOptions, now_us: int) -> tuple[EventFrame, int]:
    """A file as an event frame, and how many of its rows were left out."""
    builder = EventFrameBuilder()
    left_out = first = 0
    for chunk in read_events(path, options, now_us):
        left_out += len(chunk.rejections) + chunk.skipped
        events = chunk.events
        if events.num_rows:
            builder.append(events.combine_chunks())
        first += events.num_rows
    if first == 0:
        raise InputError("path", str(path), "no row of the file is an event")
    return builder.build(), left_out


def session_files(
    train: Path, test: Path, options: ReadOptions, settings: Settings, now_us: int
) -> ComparisonData:
    """Two session files."""
    log = make_log(read_frame(train, options, now_us)[0], settings)
    other = make_log(read_frame(test, options, now_us)[0], settings)
    return ComparisonData(log, other, int(log.sequences.timestamps_us.max()) + 1)


def cut_log(
    path: Path, cut_us: int, options: ReadOptions, settings: Settings, now_us: int
) -> ComparisonData:
    """One log; everything before `cut_us` trains and is context."""
    return ComparisonData(make_log(read_frame(path, options, now_us)[0], settings), None, cut_us)
