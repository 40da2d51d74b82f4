"""Taking back what an import of a file brought: its events and its rows in quarantine."""

from __future__ import annotations

from typing import Any

from recsys.storage.dashboard import activity_rows
from recsys.storage.engine.database import Database
from recsys.storage.entities import import_rows
from recsys.storage.entities.audit_rows import Actor, add_audit


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
