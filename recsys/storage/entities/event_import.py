"""Bulk import: chunks of a file -> a staging table -> events, in bounded memory.

An event without an id gets one from a hash of its values. Equal rows of one file share that hash,
so they are numbered in the staging table: the first keeps the hash, later ones get `<hash>-2`,
`<hash>-3` in file order. Thus true repeats survive, and a second import of the file finds every id
taken and adds nothing.

The staging table is temporary and dies with the connection. Rows then move in their file's order,
`MOVE_ROWS` a transaction, so that other writers wait only briefly; a run that is killed has moved
a prefix, and the next run finds that prefix as duplicates and goes on.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from sqlalchemy import Connection, text

from recsys.events.fields import EVENT_COLUMNS, EVENT_FIELDS
from recsys.events.identity import content_hashes, sequence_key, user_bucket
from recsys.ingest.event_files import UNREADABLE, EventChunk, ReadOptions, read_rejected
from recsys.progress import OnRows, quiet
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.engine.failures import translated
from recsys.storage.entities import rejected_rows
from recsys.storage.entities.import_rows import OpenImport
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.schema.tables.event_tables import OWNER_KEY

MOVE_ROWS = 50_000
REPLAY_ROWS = 10_000

MOVED = ("user_bucket", *EVENT_COLUMNS)
COLUMNS = ("position", "generated", *MOVED)
_SQL_TYPES = {pa.string(): "TEXT", pa.int64(): "BIGINT", pa.float64(): "{float}"}
_STAGING = f"""
    CREATE TEMPORARY TABLE staged_events (
        position BIGINT, generated SMALLINT, user_bucket SMALLINT,
        {", ".join(f"{one.name} {_SQL_TYPES[one.arrow_type]}" for one in EVENT_FIELDS)}
    )
"""
# Only hashes that occur more than once are numbered, which are few.
_NUMBER = f"""
    UPDATE staged_events SET event_id = staged_events.event_id || '-' || numbered.occurrence,
                             generated = 2
    FROM (
        SELECT position, row_number() OVER (
            PARTITION BY user_bucket, event_id, {OWNER_KEY} ORDER BY position) AS occurrence
        FROM staged_events
        WHERE generated = 1 AND event_id IN (
            SELECT event_id FROM staged_events WHERE generated = 1
            GROUP BY event_id HAVING count(*) > 1)
    ) AS numbered
    WHERE staged_events.position = numbered.position AND numbered.occurrence > 1
"""  # noqa: S608
_MOVE = f"""
    INSERT INTO events ({", ".join(MOVED)}, received_at_us, import_id)
    SELECT {", ".join(MOVED)}, :now, :import_id FROM staged_events
    WHERE position >= :first AND position < :last ORDER BY position
    ON CONFLICT (user_bucket, event_id, {OWNER_KEY}) DO NOTHING
"""  # noqa: S608
_DROP_USER = "DELETE FROM staged_events WHERE position >= :first AND user_id = :owner"
_DROP_SESSION = """
    DELETE FROM staged_events
    WHERE position >= :first AND user_id IS NULL AND session_id = :owner
"""


@dataclass(frozen=True)
class ImportSummary:
    """What became of every row of a file: read = accepted + duplicates + rejected + skipped."""

    read: int
    accepted: int
    duplicates: int  # already stored, or a second row with the same event id
    repeats: int  # rows equal to an earlier row of this file; accepted the first time, kept
    rejected: int  # in quarantine, with a reason
    skipped: int  # left out by --where, or of a user who was erased
    seconds: float
    # What was read otherwise than written, or may have been meant otherwise: words -> rows
    notes: dict[str, int] = field(default_factory=dict)
    import_id: int | None = None  # by which `events undo` takes it back

    @classmethod
    def of(cls, each: Sequence[ImportSummary]) -> ImportSummary:
        """The sum over several files; each has an import of its own, so several have no one id."""
        counts = ("read", "accepted", "duplicates", "repeats", "rejected", "skipped", "seconds")
        notes = sum((Counter(one.notes) for one in each), Counter[str]())
        ids = [one.import_id for one in each if one.import_id is not None]
        return cls(
            **{name: sum(getattr(one, name) for one in each) for name in counts},
            notes=dict(notes),
            import_id=ids[0] if len(ids) == 1 else None,
        )

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def import_chunks(
    database: Database,
    chunks: Iterable[EventChunk],
    source: str,
    now_us: int,
    on_progress: OnRows = quiet,
    record: OpenImport | None = None,
) -> ImportSummary:
    """Store all events of `chunks`; `source` names the file in the quarantine.

    `on_progress` is called with ('read', rows so far) and ('store', rows so far). `record`: the
    import that the rows will belong to, a new one where none is given. Raises ConflictError where
    that was taken back meanwhile.
    """
    started = time.perf_counter()
    read = skipped = rejected = last = lowest = 0  # lowest: where a file is newest first
    notes: Counter[str] = Counter()
    record = record or OpenImport(source, now_us)
    with translated(), database.engine.connect() as connection:
        staging = _Staging(connection)
        try:
            with _transaction(connection, write=False):
                tombstones = Tombstones(connection)
            for chunk in chunks:
                read, skipped = read + chunk.read, skipped + chunk.skipped
                notes += chunk.notes
                events, rejections = chunk.events, chunk.rejections
                if tombstones:
                    events = _without_erased(events, tombstones)
                    skipped += chunk.events.num_rows - events.num_rows
                with _transaction(connection, write=False):
                    staging.add(events)
                if rejections:
                    with _transaction(connection, write=True):
                        kept = rejected_rows.add_rejections(
                            connection,
                            source,
                            rejections,
                            now_us,
                            chunk.owners,
                            record.begin(connection),
                        )
                        record.reach(connection)
                    skipped += len(rejections) - kept
                    rejected += kept
                last = read
                lowest = min(lowest, pc.min(events["position"]).as_py() or 0)
                on_progress("read", read)
            with _transaction(connection, write=False):
                repeats = staging.number_repeats()
            accepted = 0
            for first in range(lowest, last, MOVE_ROWS):
                with _transaction(connection, write=True):
                    advisory_lock.lock_shared(connection)
                    now_erased = Tombstones(connection)
                    if now_erased != tombstones:
                        tombstones = now_erased
                        skipped += staging.drop_erased(tombstones, first)
                    span = {"first": first, "last": first + MOVE_ROWS}
                    owner = {"now": now_us, "import_id": record.begin(connection)}
                    accepted += connection.execute(text(_MOVE), span | owner).rowcount
                    record.reach(connection)
                on_progress("store", min(last, first - lowest + MOVE_ROWS))
        finally:
            staging.drop()
    stored = read - skipped - rejected
    return ImportSummary(
        read=read,
        accepted=accepted,
        duplicates=stored - accepted,
        repeats=repeats,
        rejected=rejected,
        skipped=skipped,
        seconds=time.perf_counter() - started,
        notes=dict(notes),
        import_id=record.id,
    )


def import_file(
    database: Database,
    chunks: Iterable[EventChunk],
    record: OpenImport,
    on_progress: OnRows = quiet,
) -> ImportSummary:
    """Store all events of a file's `chunks`, and what became of them in its `record`."""
    now_us = record.started_at_us
    summary = import_chunks(database, chunks, record.source, now_us, on_progress, record)
    counts = summary.plain()
    del counts["import_id"]
    with database.begin() as connection:
        record.finish(connection, counts, now_us + round(summary.seconds * 1e6))
    return replace(summary, import_id=record.id)


def replay(
    database: Database,
    options: ReadOptions,
    source: str | None,
    now_us: int,
    known_types: Collection[str] = (),
) -> dict[str, Any]:
    """Read the quarantine, or that of `source`, by `options`; rows that become events leave it.

    How many were read, accepted, duplicates and still rejected; among those `unreadable`, of which
    too little was kept to read them again. `notes`: as an import has them.
    """
    read = accepted = duplicates = after_id = 0
    notes: Counter[str] = Counter()
    while True:
        with database.connect() as connection:
            rows = rejected_rows.list_rejected(connection, REPLAY_ROWS, after_id, source)
        if not rows:
            break
        after_id = rows[-1]["id"]
        for import_id, of_import in groupby(rows, key=itemgetter("import_id")):
            page = list(of_import)
            chunk = read_rejected([row["raw"] for row in page], options, now_us, known_types)
            still = {rejection.position for rejection in chunk.rejections}
            good = replace(chunk, rejections=[], read=chunk.read - len(still))
            # What a file brought is its import's, also where it took two readings.
            record = OpenImport("quarantine", now_us, id=import_id)
            summary = import_chunks(database, [good], "quarantine", now_us, record=record)
            with database.begin() as connection:
                ids = [row["id"] for place, row in enumerate(page) if place not in still]
                rejected_rows.mark_replayed(connection, ids, now_us)
                if still and chunk.owners is not None:
                    for name in {row["source"] for row in page}:
                        rejected_rows.note_columns(connection, name, chunk.owners)
            # A row of another system may hold several events, or none.
            read, accepted = read + chunk.read, accepted + summary.accepted
            duplicates += summary.duplicates
            notes += chunk.notes
    unreadable = notes.pop(UNREADABLE, 0)
    return {
        "read": read,
        "accepted": accepted,
        "duplicates": duplicates,
        "rejected": read - accepted - duplicates,
        "unreadable": unreadable,
        "notes": dict(notes),
    }


class _Staging:
    """The temporary table of one import."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.postgresql = connection.dialect.name == "postgresql"
        floating = "DOUBLE PRECISION" if self.postgresql else "REAL"
        with _transaction(connection, write=False):
            connection.execute(text(_STAGING.format(float=floating)))

    def add(self, events: pa.Table) -> None:
        if events.num_rows == 0:
            return
        table = _staged_columns(events)
        if self.postgresql:
            buffer = io.BytesIO()
            options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
            pa_csv.write_csv(table, buffer, options)
            cursor = self.connection.connection.cursor()
            with cursor.copy("COPY staged_events FROM STDIN (FORMAT csv)") as copy:
                copy.write(buffer.getbuffer())
        else:
            columns = [table[name].to_pylist() for name in COLUMNS]
            marks = ", ".join("?" * len(COLUMNS))
            cursor = self.connection.connection.cursor()
            cursor.executemany(
                f"INSERT INTO staged_events VALUES ({marks})",  # noqa: S608
                zip(*columns, strict=True),  # type: ignore[arg-type]
            )

    def number_repeats(self) -> int:
        """Give equal rows ids of their own; how many there are beyond each first."""
        if self.postgresql:
            self.connection.execute(text("ANALYZE staged_events"))
        self.connection.execute(text("CREATE INDEX staged_position ON staged_events (position)"))
        return self.connection.execute(text(_NUMBER)).rowcount

    def drop_erased(self, tombstones: Tombstones, first: int) -> int:
        """Take out rows from position `first` on of users who are erased by now; how many."""
        owners = self.connection.execute(
            text(
                "SELECT DISTINCT user_id, CASE WHEN user_id IS NULL THEN session_id END "
                "FROM staged_events"
            )
        )
        gone = 0
        for user_id, session_id in owners.all():
            if tombstones.covers(sequence_key(user_id, session_id)):
                statement = _DROP_USER if user_id is not None else _DROP_SESSION
                owner = user_id if user_id is not None else session_id
                gone += self.connection.execute(
                    text(statement), {"owner": owner, "first": first}
                ).rowcount
        return gone

    def drop(self) -> None:
        if not self.connection.closed and not self.connection.invalidated:
            with _transaction(self.connection, write=False):
                self.connection.execute(text("DROP TABLE IF EXISTS staged_events"))


def _without_erased(events: pa.Table, tombstones: Tombstones) -> pa.Table:
    """What is left when the rows of erased users are taken out; nothing else is kept of those."""
    users = events["user_id"].to_pylist()
    sessions = events["session_id"].to_pylist()
    keys = [sequence_key(user, session) for user, session in zip(users, sessions, strict=True)]
    erased = {key for key in set(keys) if tombstones.covers(key)}
    if erased:
        events = events.filter(pa.array([key not in erased for key in keys]))
    return events


def _staged_columns(events: pa.Table) -> pa.Table:
    """`events` with its bucket, and with a hash for an id where it has none."""
    owners = pc.coalesce(events["user_id"], events["session_id"]).combine_chunks()
    encoded = owners.dictionary_encode()
    buckets = pa.array([user_bucket(name) for name in encoded.dictionary.to_pylist()], pa.int16())
    ids = events["event_id"].combine_chunks()
    generated = ids.is_null()
    if ids.null_count:
        hashes = pa.array(content_hashes(events), pa.string())
        ids = hashes if ids.null_count == len(ids) else pc.coalesce(ids, hashes)
    return pa.table(
        {
            "position": events["position"],
            "generated": generated.cast(pa.int8()),
            "user_bucket": buckets.take(encoded.indices),
            **{name: ids if name == "event_id" else events[name] for name in EVENT_COLUMNS},
        }
    )


@contextmanager
def _transaction(connection: Connection, write: bool) -> Iterator[None]:
    """One transaction on an open connection; on SQLite it takes the write lock at once if asked.

    A SQLite temporary table lives in a file of its own, so filling it needs no lock.
    """
    with connection.begin():
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
        yield
