"""Check and import a file that was uploaded in the dashboard, and take an import back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.lease import now_us
from jobs.run_log import RunLog
from recsys import pipeline
from recsys.commands import imports
from recsys.config import Settings
from recsys.errors import ConflictError, InputError, NotFoundError
from recsys.ingest.reading_form import command_line, read_options
from recsys.ingest.uploads import Upload, Uploads, open_uploads
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows
from recsys.storage.entities.audit_rows import Actor
from recsys.storage.entities.event_import import ImportSummary
from recsys.storage.events_source import open_events_source

READ_SHARE = 0.6  # of an import's time, the rest of which stores what was read
# Of a check's: reading, counting sequences, ranking.
STAGES = {"read": 0.1, "sequences": 0.6, "signal": 0.8}


@dataclass(frozen=True)
class CheckOutcome:
    """What a file holds, in short; the whole report lies beside the file."""

    file: str
    rows_read: int
    rows_kept: int
    verdict: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ImportOutcome:
    """What became of every row of a file."""

    file: str
    summary: ImportSummary

    def to_json(self) -> dict[str, Any]:
        found = {"file": self.file, **self.summary.plain()}
        found["left_out"] = found.pop("skipped")
        return found


@dataclass(frozen=True)
class UndoOutcome:
    """What an import had brought, and is gone."""

    undone: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.undone


def check(settings: Settings, database: Database, log: RunLog) -> CheckOutcome:
    """Report what is in the file, and whether its order is worth learning. Nothing is stored."""
    uploads = open_uploads(settings)
    one = _upload(uploads, database, log)

    def on_progress(stage: str, rows: int) -> None:
        words = {"read": f"{rows:,} rows read", "sequences": "sequences", "signal": "rankings"}
        log.at(words.get(stage, stage), STAGES.get(stage, 0.0))

    with _without_path(one):
        reading = read_options(one.reading or {})
        report = pipeline.check_events(
            settings, database, datetime.now(UTC), uploads.file(one), reading, on_progress
        )
    uploads.keep_report(one, report)
    kept, verdict = report["rows_kept"], report["signal"]["verdict"]
    return CheckOutcome(one.name, report["rows_read"], kept, verdict)


def import_(settings: Settings, database: Database, log: RunLog) -> ImportOutcome:
    """Store the file's events, by the code of `events import`, and delete the file."""
    open_events_source(settings, database).check_writable()
    uploads = open_uploads(settings)
    one = _upload(uploads, database, log)
    report = uploads.report(one) or {}
    rows_in_all = max(1, int(report.get("rows_read", 1)))

    def on_progress(stage: str, rows: int) -> None:
        share = min(1.0, rows / rows_in_all)
        if stage == "read":
            log.at(f"{rows:,} of {rows_in_all:,} rows read", READ_SHARE * share)
        else:
            done = READ_SHARE + (1.0 - READ_SHARE) * share
            log.at(f"{rows:,} of {rows_in_all:,} rows stored", done)

    with _without_path(one):
        summary = pipeline.import_events(
            database,
            uploads.file(one),
            read_options(one.reading or {}),
            datetime.now(UTC),
            on_progress,
            _actor(database, log),
            settings.event_types(),
        )
    uploads.spend(one)
    for words, rows in summary.notes.items():
        log.say(f"note: {words}: {rows:,} rows")
    return ImportOutcome(one.name, summary)


def undo(settings: Settings, database: Database, log: RunLog) -> UndoOutcome:
    """Delete what an import stored and its rows in quarantine."""
    import_id = int(_options(database, log)["import_id"])
    log.at(f"deleting the events of import {import_id}", 0.0)
    return UndoOutcome(imports.undo(database, _actor(database, log), import_id, now_us()))


def _options(database: Database, log: RunLog) -> dict[str, Any]:
    with database.connect() as connection:
        return job_rows.get_run(connection, log.run_id).options


def _actor(database: Database, log: RunLog) -> Actor:
    """Who asked for the run."""
    options = _options(database, log)
    return Actor(str(options["actor"]), str(options["role"]))


def _upload(uploads: Uploads, database: Database, log: RunLog) -> Upload:
    """The file that the run was asked for with. Raises ConflictError where it is gone."""
    try:
        one = uploads.get(str(_options(database, log)["upload_id"]))
    except NotFoundError:
        one = None
    if one is None or not one.complete:
        raise ConflictError(
            "the uploaded file is not in the scheduler's events.upload_path: it was deleted, or the "
            "service has another folder"
        )
    log.say(command_line(one.name, one.reading or {}))
    return one


@contextmanager
def _without_path(one: Upload) -> Iterator[None]:
    """What cannot be read is named as its owner calls it, not by where it lies here."""
    try:
        yield
    except InputError as error:
        if error.field != "path":
            raise
        raise InputError("file", one.name, error.expected) from None
