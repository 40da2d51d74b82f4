"""The events of the training window as an event frame: from the sequence files, or else the database."""

from __future__ import annotations

from recsys.config import Settings
from recsys.errors import ConflictError, SequenceFileError, SourceUnavailableError
from recsys.events.frame import EventFrame
from recsys.events.times import DAY_US
from recsys.progress import Say
from recsys.sequence_store.store import ReadRanges, SequenceStore
from recsys.storage.engine.database import Database
from recsys.storage.events_source import open_events_source


def open_store(
    settings: Settings,
    database: Database,
    processes: int = 2,
    read_ranges: ReadRanges | None = None,
) -> SequenceStore:
    """Open the sequence files in the registry's folder: of the external table, or of the service's own."""
    external = open_events_source(settings, database).external
    rows = external.rows() if external else None
    return SequenceStore(settings.registry.path / ".sequences", processes, rows, read_ranges)


def update_store(store: SequenceStore, database: Database, say: Say) -> None:
    """Read new events into the sequence files. Raises ConflictError where another process is at it."""
    done = store.update(database, say)
    say(f"read {done.new_rows:,} new events in {done.seconds:.1f} s")


def training_frame(
    settings: Settings,
    database: Database,
    now_us: int,
    say: Say,
    read_ranges: ReadRanges | None = None,
) -> EventFrame:
    """Read the events of the training window at `now_us` as an event frame; new ones by `read_ranges`.

    Sequence files that are damaged are built anew; where there can be none, as where another process
    updates them, the database is read instead. Raises SourceUnavailableError.
    """
    store = open_store(settings, database, settings.training.processes, read_ranges)
    since_us = window_start_us(settings, now_us)
    try:
        update_store(store, database, say)
        try:
            return store.frame(database, since_us)
        except SequenceFileError as error:
            say(f"{error}; the files are built anew")
            store.forget()
            store.update(database, say)
            return store.frame(database, since_us)
    except SourceUnavailableError:
        raise
    except (ConflictError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        say(f"no sequence files ({reason}): the database is read instead")
        return open_events_source(settings, database).frame_since(now_us, since_us)


def window_start_us(settings: Settings, now_us: int) -> int:
    """The start of the training window: events before it are not learned from."""
    days = [d for d in (settings.sequences.max_days, settings.events.retention_days) if d]
    return max(0, now_us - min(days) * DAY_US) if days else 0
