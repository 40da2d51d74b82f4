"""Which version serves: promotion, roll back, and publishing what was trained.

Promotions come from people (the dashboard's operators, REST keys of scope admin, `recsys models promote`)
and from the gate of every training (`recsys train`, the jobs retrain and tune, the demo); roll backs from
the same people and from the guard (`recsys.ops.guard`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import version_rows
from recsys.storage.entities.audit_rows import Actor, add_audit
from recsys.storage.entities.version_rows import VersionRow

Promotion = Literal["by the gate", "forced", "never"]
Published = Literal["promoted", "kept", "overtaken"]


def promote(database: Database, actor: Actor, version: str, reason: str, now_us: int) -> None:
    """Make a registered version the champion, whatever the gate said.

    Raises NotFoundError, or ConflictError where its files were deleted.
    """
    with database.begin() as connection:
        promote_in(connection, actor, version, reason, now_us)


def promote_in(
    connection: Connection, actor: Actor, version: str, reason: str, now_us: int
) -> None:
    """`promote` in a transaction that does more, as an experiment's does."""
    _deploy(connection, actor, "model.promote", version, reason, now_us)


def roll_back(database: Database, actor: Actor, reason: str, now_us: int) -> str:
    """Go back to the champion before this one; its version. Raises ConflictError where none is left."""
    with database.begin() as connection:
        return roll_back_in(connection, actor, reason, now_us)


def roll_back_in(connection: Connection, actor: Actor, reason: str, now_us: int) -> str:
    """`roll_back` in a transaction that has looked at the champion before, as the guard's does."""
    replaced = version_rows.lock_champion(connection)
    version = version_rows.roll_back(connection, now_us, _deployed_by(actor), reason)
    _write_audit(connection, actor, "model.rollback", version, replaced, reason, now_us)
    return version


def publish(
    database: Database,
    actor: Actor,
    row: VersionRow,
    promotion: Promotion,
    champion_before: tuple[str, str] | None,
    now_us: int,
    fence: Callable[[Connection], None],
) -> Published:
    """Register a version that was trained and, if its verdict or force allows, make it the champion.

    `champion_before`: what `version_rows.champion_name` gave when the training began. Where that is
    another champion by now the version was judged against the wrong one, and is 'overtaken': it is
    registered, and promoted by force alone. `fence` may refuse all of it by raising.
    """
    passed, verdict = row.state == "candidate", row.verdict["reason"]
    with database.begin() as connection:
        fence(connection)
        version_rows.add_version(connection, row)
        if promotion == "never" or not (passed or promotion == "forced"):
            return "kept"
        if promotion != "forced" and version_rows.lock_champion(connection) != champion_before:
            return "overtaken"
        if passed:
            _deploy(connection, actor, "model.promote", row.version, verdict, now_us)
        else:
            reason = f"forced; the gate said: {verdict}"
            _deploy(connection, actor, "model.force_promote", row.version, reason, now_us)
    return "promoted"


def _deploy(
    connection: Connection, actor: Actor, action: str, version: str, reason: str, now_us: int
) -> None:
    replaced = version_rows.lock_champion(connection)
    version_rows.deploy(connection, version, now_us, _deployed_by(actor), reason)
    _write_audit(connection, actor, action, version, replaced, reason, now_us)


def _write_audit(
    connection: Connection,
    actor: Actor,
    action: str,
    version: str,
    replaced: tuple[str, str] | None,
    reason: str,
    now_us: int,
) -> None:
    """The deployment's line, and one for tuned settings where trainings go on with others from now on."""
    before = None if replaced is None else replaced[0]
    details = {"reason": reason, "replaced": before}
    seen = version_rows.get_version(connection, version).facts.get("seen")
    if seen:  # what answers leave out from now on, where nobody says otherwise
        details["exclude_seen"] = seen["exclude_seen"]
    add_audit(connection, actor, action, version, now_us, details)
    adopted = _adopted(connection, version)
    if adopted != ({} if before is None else _adopted(connection, before)):
        add_audit(connection, actor, "settings.adopt", version, now_us, adopted)


def _adopted(connection: Connection, version: str) -> dict[str, Any]:
    """The tuned settings that trainings take from a champion, by 'section.key'."""
    sections = version_rows.get_version(connection, version).facts.get("adopted") or {}
    return {
        f"{section}.{key}": one["value"]
        for section, values in sections.items()
        for key, one in values.items()
    }


def _deployed_by(actor: Actor) -> str:
    """How a deployment's row names who made it: of a key, only that it came over REST."""
    return "rest" if actor.role == "key" else actor.name
