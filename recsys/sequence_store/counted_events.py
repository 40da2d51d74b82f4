"""Events that count -> the event frame: through the sequence files, or from the database where they fail."""

from __future__ import annotations

from collections.abc import Callable

from recsys.config import Settings
from recsys.errors import ConflictError, SequenceFileError, SourceUnavailableError
from recsys.events.frame import EventFrame
from recsys.events.times import DAY_US
from recsys.sequence_store.store import Reading, SequenceStore
from recsys.storage.engine.database import Database
from recsys.storage.event_source import EventSource
from recsys.storage.log_reading import frame_since

Say = Callable[[str], None]


def open_store(
    settings: Settings, database: Database, processes: int = 2, reading: Reading | None = None
) -> SequenceStore:
    """The sequence files of the registry's folder: of the mapped table, or of the service's own."""
    rows = EventSource(settings, database).rows()
    return SequenceStore(settings.registry.path / ".sequences", processes, rows, reading)


def read_on(store: SequenceStore, database: Database, say: Say) -> None:
    """Read new events into the files. Raises ConflictError where another process is at it."""
    done = store.update(database, say)
    say(f"read {done.new_rows:,} new events in {done.seconds:.1f} s")


def counted_frame(settings: Settings, database: Database, now_us: int, say: Say) -> EventFrame:
    """All events that count at `now_us`. Files that are damaged are built anew; where there can be none,
    as where another process is at them, the database is read. Raises SourceUnavailableError.
    """
    store = open_store(settings, database, settings.training.processes)
    since_us = horizon_us(settings, now_us)
    try:
        read_on(store, database, say)
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
        return frame_since(settings, database, now_us, since_us)


def horizon_us(settings: Settings, now_us: int) -> int:
    """The time from which on events count."""
    days = [d for d in (settings.sequences.max_days, settings.events.retention_days) if d]
    return max(0, now_us - min(days) * DAY_US) if days else 0
