"""The audit log: who changed what, when, and from where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from recsys.errors import unknown
from recsys.storage.schema.tables import audit_log

MAX_TEXT = 500
RECENT = 5_000  # lines whose names are offered as filters


@dataclass(frozen=True)
class Actor:
    """Who does something: an account, a key, the command line, or the service by itself."""

    name: str
    role: str  # of an account: its role; 'key', 'cli' or 'job'; '-' where nobody is known yet
    request_id: str | None = None
    address: str | None = None


CLI = Actor("cli", "cli")
SCHEDULE = Actor("schedule", "job")  # a scheduled job, whose promotions the gate lets through
GUARD = Actor("guard", "job")  # rolls back a champion that does badly in service


@dataclass(frozen=True)
class AuditRow:
    """One line of the log."""

    id: int
    at_us: int
    actor: str
    role: str
    action: str
    subject: str
    details: dict[str, Any]
    request_id: str | None
    address: str | None


def add_audit(
    connection: Connection,
    actor: Actor,
    action: str,
    subject: str,
    now_us: int,
    details: dict[str, Any] | None = None,
) -> None:
    """Write a line, in the transaction of what it tells of.

    `action` is a thing and a verb (`model.promote`); `details` hold no secret and, of an erased
    user, nothing that tells who it was.
    """
    connection.execute(
        audit_log.insert(),
        {
            "at_us": now_us,
            "actor": actor.name[:MAX_TEXT],
            "role": actor.role,
            "action": action,
            "subject": subject[:MAX_TEXT],
            "details": json.dumps(details or {}),
            "request_id": actor.request_id,
            "address": actor.address,
        },
    )


def list_audit(
    connection: Connection,
    limit: int = 50,
    before_id: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
) -> list[AuditRow]:
    """Newest first; `action` may be a thing alone (`model`)."""
    statement = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(audit_log.c.id < before_id)
    if actor is not None:
        statement = statement.where(audit_log.c.actor == actor)
    if action is not None:
        whole = audit_log.c.action == action
        statement = statement.where(whole | audit_log.c.action.startswith(f"{action}."))
    if subject is not None:
        statement = statement.where(audit_log.c.subject == subject)
    if since_us is not None:
        statement = statement.where(audit_log.c.at_us >= since_us)
    if until_us is not None:
        statement = statement.where(audit_log.c.at_us < until_us)
    rows = connection.execute(statement)
    return [AuditRow(**{**row._mapping, "details": json.loads(row.details)}) for row in rows]


def names_in_use(connection: Connection) -> tuple[list[str], list[str]]:
    """Actors and actions of the newest RECENT lines."""
    newest = (
        select(audit_log.c.actor, audit_log.c.action)
        .order_by(audit_log.c.id.desc())
        .limit(RECENT)
        .subquery()
    )
    actors, actions = (
        connection.execute(select(column).distinct().order_by(column)).scalars().all()
        for column in (newest.c.actor, newest.c.action)
    )
    return list(actors), list(actions)


def check_names(connection: Connection, actor: str | None, action: str | None) -> None:
    """Raise InputError where no line is of this actor, or of this action (None: any)."""
    actors, actions = names_in_use(connection)
    if actor is not None and not list_audit(connection, 1, actor=actor):
        raise unknown("actor", actor, "an actor of some line", actors)
    if action is not None and not list_audit(connection, 1, action=action):
        raise unknown("action", action, "an action of some line", actions)
