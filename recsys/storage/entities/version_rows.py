"""Model versions and deployments as rows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from recsys.errors import ConflictError, NotFoundError
from recsys.storage.engine import advisory_lock
from recsys.storage.entities import experiment_rows
from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import deployments, model_versions

VERSION_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


@dataclass(frozen=True)
class VersionRow:
    """A registered version; `facts` and `verdict` are JSON objects."""

    version: str
    created_at_us: int
    state: str  # 'candidate', 'refused', 'promoted', 'deleted'
    ranking: str
    data_start_us: int
    data_end_us: int
    event_count: int
    user_count: int
    item_count: int
    facts: dict[str, Any]
    verdict: dict[str, Any]
    manifest_sha256: str
    size_bytes: int
    run_id: int | None = None


def add_version(connection: Connection, row: VersionRow) -> None:
    values = {**vars(row), "facts": json.dumps(row.facts), "verdict": json.dumps(row.verdict)}
    connection.execute(model_versions.insert(), values)


def get_version(connection: Connection, version: str) -> VersionRow:
    """Raises NotFoundError."""
    statement = select(model_versions).where(model_versions.c.version == version)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFoundError("model version", version)
    return _version(row)


def list_versions(
    connection: Connection,
    limit: int = 100,
    before: str | None = None,
    state: str | None = None,
    ranking: str | None = None,
) -> list[VersionRow]:
    """Newest first; `before` is the last version of the page before."""
    statement = select(model_versions).order_by(model_versions.c.version.desc()).limit(limit)
    if before is not None:
        statement = statement.where(model_versions.c.version < before)
    if state is not None:
        statement = statement.where(model_versions.c.state == state)
    if ranking is not None:
        statement = statement.where(model_versions.c.ranking == ranking)
    return [_version(row) for row in connection.execute(statement)]


_CHAMPION = (
    select(model_versions)
    .join(deployments, deployments.c.version == model_versions.c.version)
    .order_by(deployments.c.id.desc())
    .limit(1)
)
_CHAMPION_NAME = (
    select(model_versions.c.version, model_versions.c.manifest_sha256)
    .join(deployments, deployments.c.version == model_versions.c.version)
    .order_by(deployments.c.id.desc())
    .limit(1)
)


def champion(connection: Connection) -> VersionRow | None:
    """The version deployed last."""
    row = connection.execute(_CHAMPION).one_or_none()
    return None if row is None else _version(row)


def champion_name(connection: Connection) -> tuple[str, str] | None:
    """The champion's version and the SHA-256 of its manifest: all that serving asks for."""
    row = connection.execute(_CHAMPION_NAME).one_or_none()
    return None if row is None else (row.version, row.manifest_sha256)


def champions_between(
    connection: Connection, since_us: int, until_us: int
) -> list[tuple[str, int, int]]:
    """(version, from, until) of each champion in [since_us, until_us), in order."""
    at_us = deployments.c.deployed_at_us
    every = select(deployments.c.version, at_us)
    before = every.where(at_us <= since_us).order_by(deployments.c.id.desc()).limit(1)
    later = every.where(at_us > since_us, at_us < until_us).order_by(deployments.c.id)
    rows = [*connection.execute(before), *connection.execute(later)]
    starts = [max(row.deployed_at_us, since_us) for row in rows]
    ends = [*starts[1:], until_us]
    spans = zip(rows, starts, ends, strict=False)  # without rows there is an end and no start
    return [(row.version, start, end) for row, start, end in spans]


def lock_champion(connection: Connection) -> tuple[str, str] | None:
    """`champion_name`, which no other transaction changes until the end of this one."""
    advisory_lock.take_turns(connection, "deployments")
    return champion_name(connection)


def deploy(connection: Connection, version: str, now_us: int, by: str, reason: str) -> None:
    """Make `version` the champion. Raises NotFoundError, or ConflictError where it was deleted."""
    advisory_lock.take_turns(connection, "deployments")
    if _lock(connection, version) == "deleted":
        raise ConflictError(f"version {version} was deleted")
    connection.execute(
        deployments.insert(),
        {"version": version, "deployed_at_us": now_us, "deployed_by": by, "reason": reason},
    )
    set_state(connection, version, "promoted")
    bump(connection, "deployments")


def retire(connection: Connection, version: str) -> bool:
    """Mark a version as deleted; False where it is deployed, could be rolled back to, answers in an
    experiment that runs, or is gone.
    """
    if _lock(connection, version) == "deleted":
        return False
    wanted = [*deployed_names(connection), *experiment_rows.models_wanted(connection)]
    if version in dict(wanted):  # by someone who held the lock before
        return False
    set_state(connection, version, "deleted")
    return True


def _lock(connection: Connection, version: str) -> str:
    """The version's state, which no other transaction changes until the end of this one."""
    statement = (
        select(model_versions.c.state).where(model_versions.c.version == version).with_for_update()
    )
    state: str | None = connection.execute(statement).scalar()
    if state is None:
        raise NotFoundError("model version", version)
    return state


def roll_back(connection: Connection, now_us: int, by: str, reason: str) -> str:
    """Deploy the version that was champion before the present one; its name.

    Two roll backs in a row go two versions back, not to and fro. Raises ConflictError where there
    is nothing to go back to.
    """
    advisory_lock.take_turns(connection, "deployments")
    for version in _earlier_champions(connection):
        deploy(connection, version, now_us, by, reason)
        return version
    raise ConflictError("there is no earlier champion to roll back to")


def _earlier_champions(connection: Connection) -> list[str]:
    """Versions that a roll back can still reach, the latest first; deleted ones are left out."""
    rows = connection.execute(
        select(deployments.c.version, model_versions.c.state)
        .join(model_versions, model_versions.c.version == deployments.c.version)
        .order_by(deployments.c.id)
    ).all()
    line: list[str] = []
    for row in rows:
        if row.version in line:
            del line[line.index(row.version) + 1 :]
        else:
            line.append(row.version)
    deleted = {row.version for row in rows if row.state == "deleted"}
    return [version for version in reversed(line[:-1]) if version not in deleted]


def deployed_names(connection: Connection) -> list[tuple[str, str]]:
    """(version, SHA-256 of its manifest) of the champion and, after it, the one it replaced."""
    champion_now = champion_name(connection)
    if champion_now is None:
        return []
    earlier = _earlier_champions(connection)[:1]
    return [
        champion_now,
        *((name, get_version(connection, name).manifest_sha256) for name in earlier),
    ]


def kept_names(connection: Connection) -> set[str]:
    """The versions whose files stay: those that were not deleted, and whatever serves."""
    kept = select(model_versions.c.version).where(model_versions.c.state != "deleted")
    serving = (name for name, _ in deployed_names(connection))
    return {*connection.execute(kept).scalars(), *serving}


def set_state(connection: Connection, version: str, state: str) -> None:
    connection.execute(
        update(model_versions).where(model_versions.c.version == version).values(state=state)
    )


def rollback_target(connection: Connection) -> str | None:
    """The version that a roll back would deploy."""
    return next(iter(_earlier_champions(connection)), None)


def list_deployments(
    connection: Connection, limit: int = 100, version: str | None = None
) -> list[dict[str, Any]]:
    """Newest first."""
    statement = select(deployments).order_by(deployments.c.id.desc()).limit(limit)
    if version is not None:
        statement = statement.where(deployments.c.version == version)
    return [dict(row._mapping) for row in connection.execute(statement)]


def _version(row: Any) -> VersionRow:
    values = dict(row._mapping)
    values["facts"] = json.loads(values["facts"])
    values["verdict"] = json.loads(values["verdict"])
    return VersionRow(**values)
