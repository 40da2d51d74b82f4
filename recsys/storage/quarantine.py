"""Rows that could not be events, read once more."""

from __future__ import annotations

from dataclasses import replace

from recsys.ingest.event_files import ReadOptions, read_rejected
from recsys.storage.engine.database import Database
from recsys.storage.entities import rejected_rows
from recsys.storage.entities.event_import import import_chunks

REPLAY_ROWS = 10_000


def replay(
    database: Database, options: ReadOptions, source: str | None, now_us: int
) -> dict[str, int]:
    """Read the quarantine, or that of `source`, by `options`; rows that become events leave it.

    How many were read, accepted, duplicates and still rejected.
    """
    read = accepted = duplicates = after_id = 0
    while True:
        with database.connect() as connection:
            rows = rejected_rows.list_rejected(connection, REPLAY_ROWS, after_id, source)
        if not rows:
            break
        after_id = rows[-1]["id"]
        chunk = read_rejected([row["raw"] for row in rows], options, now_us)
        still = {rejection.position for rejection in chunk.rejections}
        good = replace(chunk, rejections=[], read=chunk.read - len(still))
        summary = import_chunks(database, [good], "quarantine", now_us)
        with database.begin() as connection:
            ids = [row["id"] for place, row in enumerate(rows) if place not in still]
            rejected_rows.mark_replayed(connection, ids, now_us)
        read, accepted = read + len(rows), accepted + summary.accepted
        duplicates += summary.duplicates
    return {
        "read": read,
        "accepted": accepted,
        "duplicates": duplicates,
        "rejected": read - accepted - duplicates,
    }
