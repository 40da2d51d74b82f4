"""Scenarios as rows: the version of each that answers, and all its versions."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, Select, delete, func, select

from recsys.errors import NotFoundError
from recsys.steering.scenario_spec import ScenarioSpec, read_spec
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import scenario_versions, scenarios

_versions = scenario_versions.c


@dataclass(frozen=True)
class StoredScenario:
    """One version of a scenario."""

    name: str
    version: int
    author: str
    created_at_us: int
    note: str | None  # what else is to be told of it, such as which version it goes back to
    spec: ScenarioSpec


def list_scenarios(connection: Connection) -> list[StoredScenario]:
    """The versions that answer, by name."""
    return _read(connection, _current().order_by(scenarios.c.name))


def get_scenario(connection: Connection, name: str) -> StoredScenario | None:
    """The version of `name` that answers, or None."""
    return next(iter(_read(connection, _current().where(scenarios.c.name == name))), None)


def list_versions(
    connection: Connection, name: str, limit: int, before: int | None = None
) -> list[StoredScenario]:
    """Versions of `name`, newest first; those of one that was deleted too. `before`: older than that."""
    statement = select(scenario_versions).where(_versions.name == name)
    if before is not None:
        statement = statement.where(_versions.version < before)
    return _read(connection, statement.order_by(_versions.version.desc()).limit(limit))


def count_scenarios(connection: Connection) -> int:
    """How many answer."""
    return connection.execute(select(func.count()).select_from(scenarios)).scalar_one()


def get_version(connection: Connection, name: str, version: int) -> StoredScenario:
    """Raises NotFoundError."""
    chosen = select(scenario_versions).where(_versions.name == name, _versions.version == version)
    found = _read(connection, chosen)
    if not found:
        raise NotFoundError(f"version of scenario {name}", version)
    return found[0]


def add_version(
    connection: Connection,
    name: str,
    spec: ScenarioSpec,
    author: str,
    now_us: int,
    note: str | None = None,
) -> StoredScenario:
    """Store the next version of `name` and let it answer from the next request on."""
    take_turns(connection)
    newest = select(func.max(_versions.version)).where(_versions.name == name)
    stored = StoredScenario(
        name, (connection.execute(newest).scalar() or 0) + 1, author, now_us, note, spec
    )
    values = {**vars(stored), "spec": orjson.dumps(spec.plain).decode()}
    connection.execute(scenario_versions.insert(), values)
    put = upsert(connection, scenarios).values(name=name, version=stored.version)
    connection.execute(
        put.on_conflict_do_update(index_elements=["name"], set_={"version": stored.version})
    )
    bump(connection, "scenarios")
    return stored


def take_turns(connection: Connection) -> None:
    """Let no other transaction change a scenario until this one ends."""
    advisory_lock.take_turns(connection, "scenarios")


def delete_scenario(connection: Connection, name: str) -> None:
    """Let `name` be a label alone again; its versions stay. Raises NotFoundError."""
    if connection.execute(delete(scenarios).where(scenarios.c.name == name)).rowcount == 0:
        raise NotFoundError("scenario", name)
    bump(connection, "scenarios")


def _current() -> Select[tuple[object, ...]]:
    return select(scenario_versions).join(
        scenarios,
        (scenarios.c.name == _versions.name) & (scenarios.c.version == _versions.version),
    )


def _read(connection: Connection, statement: Select[tuple[object, ...]]) -> list[StoredScenario]:
    return [
        StoredScenario(**{**row._mapping, "spec": read_spec(orjson.loads(row.spec))})
        for row in connection.execute(statement)
    ]
