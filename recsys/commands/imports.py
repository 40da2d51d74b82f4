"""Imports of files: what is asked for of an uploaded one, and taking an import back."""

from __future__ import annotations

from typing import Any

from recsys.errors import ConflictError
from recsys.ingest.uploads import Upload, Uploads
from recsys.storage.dashboard import activity_rows
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import import_rows, job_rows
from recsys.storage.entities.audit_rows import Actor, add_audit

REQUESTED_BY = "dashboard"


def ask_check(database: Database, uploads: Uploads, upload: Upload, now_us: int) -> Upload:
    """Ask for the check of an uploaded file, as it is to be read; the scheduler runs it.

    Raises ConflictError where the file is not whole yet, or a run of it waits or runs.
    """
    require_idle(database, upload)
    if not upload.complete:
        raise ConflictError("the file has not arrived whole")
    with database.begin() as connection:
        run_id = job_rows.request_run(
            connection, "check", REQUESTED_BY, now_us, {"upload_id": upload.upload_id}
        )
    return uploads.note_check(upload, run_id)


def ask_import(
    database: Database, actor: Actor, uploads: Uploads, upload: Upload, now_us: int
) -> Upload:
    """Ask for the import of an uploaded file that was checked; the scheduler runs it.

    Raises ConflictError where it was not checked as it is read now, or a run of it waits or runs.
    """
    require_idle(database, upload)
    if uploads.report(upload) is None:
        raise ConflictError("the file was not checked yet")
    options = {"upload_id": upload.upload_id, **_plain(actor)}
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "import", REQUESTED_BY, now_us, options)
        details = {"run_id": run_id, "bytes": upload.size}
        add_audit(connection, actor, "events.import", upload.name, now_us, details)
    return uploads.note_import(upload, run_id)


def ask_undo(database: Database, actor: Actor, import_id: int, now_us: int) -> int:
    """Ask for an import to be taken back; the scheduler's run, which leaves the audit line of it.

    Raises NotFoundError, and ConflictError where it was undone before or a run of that waits or runs.
    """
    with database.begin() as connection:
        import_rows.check_undoable(import_rows.get_import(connection, import_id))
        if (run := undo_run(connection, import_id)) and run.state not in job_rows.ENDED:
            raise ConflictError(f"run {run.id} is undoing import {import_id} already")
        options = {"import_id": import_id, **_plain(actor)}
        return job_rows.request_run(connection, "undo", REQUESTED_BY, now_us, options)


def require_idle(database: Database, upload: Upload) -> None:
    """Raise ConflictError where a run of an uploaded file waits or runs, or has imported it."""
    for run_id in filter(None, (upload.check_run, upload.import_run)):
        with database.connect() as connection:
            run = job_rows.get_run(connection, run_id)
        if run.state not in job_rows.ENDED:
            raise ConflictError(f"run {run.id} of {run.job} is {run.state}")
        if run.job == "import" and run.state == "succeeded":
            raise ConflictError("the file was imported")


def undo_run(connection: Connection, import_id: int) -> job_rows.RunRow | None:
    """The newest run that takes an import back, among the newest runs."""
    runs = job_rows.list_runs(connection, job_rows.MAX_FILE_RUNS, job="undo")
    return next((run for run in runs if run.options.get("import_id") == import_id), None)


def _plain(actor: Actor) -> dict[str, str]:
    return {"actor": actor.name, "role": actor.role}


def undo(database: Database, actor: Actor, import_id: int, now_us: int) -> dict[str, Any]:
    """Delete the events that an import stored and its rows in quarantine, in batches; how many.

    Rows that it found stored already are not its own and stay, as do those that later imports of
    the same file found stored by it: they go. The file can be imported again. The dashboard's counts
    follow here, sequence files at their next update, popular items within a minute, and models at
    the next training. Raises NotFoundError, and ConflictError where it was undone before.
    """
    with database.begin() as connection:
        one = import_rows.begin_undo(connection, import_id, now_us)
    removed, days = 0, set[int]()
    for first in range(one.first_row, one.last_row + 1, import_rows.UNDO_ROWS):
        with database.begin(long=True) as connection:
            gone, of_days = import_rows.undo_rows(connection, one, first)
        removed, days = removed + gone, days | of_days
    with database.begin(long=True) as connection:
        quarantined = import_rows.finish_undo(connection, one, removed, now_us)
        details = {"source": one.source, "events": removed, "quarantined": quarantined}
        add_audit(connection, actor, "import.undo", str(import_id), now_us, details)
    activity_rows.follow_undo(database, now_us, days)
    return {"import_id": import_id, **details}
