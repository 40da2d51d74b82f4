"""What people steer, over REST and the dashboard alike: done and written to the audit log in one
transaction.
"""

from __future__ import annotations

from typing import Any

from flask import g, request

from recsys.errors import NotFoundError
from recsys.ingest.item_body import check_item
from recsys.storage.engine.database import Connection
from recsys.storage.entities import audit_rows, item_rows, job_rows, user_rows, version_rows
from recsys.storage.entities.account_rows import SessionRow
from recsys.storage.entities.audit_rows import Actor
from recsys.storage.entities.job_rows import JOBS, RunRow
from recsys.storage.entities.key_rows import KeyRow
from recsys.web.services import now_us, services


def actor() -> Actor:
    """Who sent the request at hand."""
    context = {"request_id": g.get("request_id"), "address": request.remote_addr}
    session: SessionRow | None = g.get("account")
    if session is not None:
        return Actor(session.name, session.role, **context)
    key: KeyRow | None = g.get("key")
    return Actor("anyone" if key is None else f"key {key.key_id}", "key", **context)


def audit(connection: Connection, action: str, subject: object, **details: Any) -> None:
    """Write a line of the audit log about the request at hand, in the transaction of its change."""
    audit_rows.add_audit(connection, actor(), action, str(subject), now_us(), details)


def promote(version: str, by: str, reason: str) -> None:
    """Make a version the champion. Raises NotFoundError, or ConflictError where it was deleted."""
    with services().database.begin() as connection:
        before = version_rows.champion_name(connection)
        version_rows.deploy(connection, version, now_us(), by, reason)
        replaced = None if before is None else before[0]
        audit(connection, "model.promote", version, reason=reason, replaced=replaced)


def roll_back(by: str, reason: str) -> str:
    """Go back to the champion before this one; its version. Raises ConflictError."""
    with services().database.begin() as connection:
        before = version_rows.champion_name(connection)
        champion = version_rows.roll_back(connection, now_us(), by, reason)
        replaced = None if before is None else before[0]
        audit(connection, "model.rollback", champion, reason=reason, replaced=replaced)
    return champion


def run_job(job: str, by: str) -> RunRow:
    """Ask for a run now. Raises NotFoundError, or ConflictError where one waits or runs."""
    if job not in JOBS:
        raise NotFoundError("job", job)
    with services().database.begin() as connection:
        run_id = job_rows.request_run(connection, job, by, now_us())
        audit(connection, "job.run", job, run_id=run_id)
        return job_rows.get_run(connection, run_id)


def cancel_run(run_id: int) -> RunRow:
    """Cancel a run. Raises NotFoundError, or ConflictError where it has ended."""
    with services().database.begin() as connection:
        job_rows.cancel_run(connection, run_id, now_us())
        run = job_rows.get_run(connection, run_id)
        audit(connection, "job.cancel", run.job, run_id=run_id)
        return run


def set_paused(job: str, paused: bool) -> dict[str, Any]:
    """Pause a job's schedule or let it go on; its row. Raises NotFoundError where it has none."""
    with services().database.begin() as connection:
        job_rows.set_paused(connection, job, paused, now_us())
        audit(connection, "job.pause" if paused else "job.resume", job)
        return job_rows.get_schedule(connection, job)


def merge_users(user_id: str, other: str) -> str:
    """Count the events of `other` ('u:<user_id>' or 's:<session_id>') as the user's from now on.

    The user it ends at; raises ConflictError.
    """
    with services().database.begin() as connection:
        target = user_rows.merge(connection, user_id, other, now_us())
        kind = "session" if other.startswith("s:") else "user"
        audit(connection, "user.merge", user_rows.pseudonym(connection, target), merged=kind)
    return target


def set_availability(item_id: str, available: bool) -> None:
    """Let an item into answers or keep it out of them, from the next request on.

    An item without metadata gets a row that says no more than that.
    """
    with services().database.begin() as connection:
        if not item_rows.update_item(connection, item_id, {"available": available}, now_us()):
            bare = check_item({"item_id": item_id, "available": available})
            item_rows.put_items(connection, [bare], now_us())
        audit(connection, "item.show" if available else "item.hide", item_id)
