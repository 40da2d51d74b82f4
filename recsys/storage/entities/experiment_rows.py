"""Experiments as rows: what is tried and in which state, and who tests which arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, or_, select, update

from recsys.errors import ConflictError, NotFoundError
from recsys.steering.assignment import Ranges
from recsys.steering.experiment_spec import ExperimentSpec, State, read_experiment
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import experiment_testers, experiments, model_versions

MAX_TESTERS = 1_000  # of an experiment


@dataclass(frozen=True)
class ExperimentRow:
    """An experiment; `ranges` are the buckets of its space whose units are in it."""

    name: str
    state: State
    spec: ExperimentSpec
    ranges: Ranges
    author: str
    created_at_us: int
    started_at_us: int | None = None
    stopped_at_us: int | None = None
    promoted: str | None = None  # the arm that everybody got afterwards


def take_turns(connection: Connection) -> None:
    """Let no other transaction change experiments until the end of this one."""
    advisory_lock.take_turns(connection, "experiments")


def list_experiments(
    connection: Connection, limit: int = 100, before: tuple[int, str] | None = None
) -> list[ExperimentRow]:
    """Newest first; `before`: when the last one of the page before was made, and its name."""
    rows = experiments.c
    statement = select(experiments).order_by(rows.created_at_us.desc(), rows.name).limit(limit)
    if before is not None:
        at_us, name = before
        same = (rows.created_at_us == at_us) & (rows.name > name)
        statement = statement.where(or_(rows.created_at_us < at_us, same))
    return [_read(row) for row in connection.execute(statement)]


def running(connection: Connection) -> list[ExperimentRow]:
    """Those that answers follow, by name."""
    statement = select(experiments).where(experiments.c.state == "running")
    return [_read(row) for row in connection.execute(statement.order_by(experiments.c.name))]


def find_experiment(connection: Connection, name: str) -> ExperimentRow | None:
    row = connection.execute(select(experiments).where(experiments.c.name == name)).one_or_none()
    return None if row is None else _read(row)


def get_experiment(connection: Connection, name: str) -> ExperimentRow:
    """Raises NotFoundError."""
    found = find_experiment(connection, name)
    if found is None:
        raise NotFoundError("experiment", name)
    return found


def put_draft(
    connection: Connection, name: str, spec: ExperimentSpec, author: str, now_us: int
) -> None:
    """Write down a draft, in place of one of the same name."""
    values = {"spec": orjson.dumps(spec.plain).decode(), "author": author, "created_at_us": now_us}
    statement = upsert(connection, experiments).values(name=name, state="draft", **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def change(connection: Connection, name: str, **values: Any) -> None:
    """Change columns of an experiment: `spec` and `buckets` as they are here."""
    if "spec" in values:
        values["spec"] = orjson.dumps(values["spec"].plain).decode()
    if "buckets" in values:
        values["buckets"] = orjson.dumps(values["buckets"]).decode()
    connection.execute(update(experiments).where(experiments.c.name == name).values(**values))
    bump(connection, "experiments")


def delete_draft(connection: Connection, name: str) -> None:
    """Delete a draft and its testers."""
    connection.execute(
        delete(experiments).where(experiments.c.name == name, experiments.c.state == "draft")
    )
    connection.execute(delete(experiment_testers).where(experiment_testers.c.experiment == name))


def put_tester(connection: Connection, name: str, unit: str, arm: str | None) -> None:
    """Show an arm to a unit, uncounted; None: whatever the hash says again.

    Raises ConflictError where the experiment has MAX_TESTERS already.
    """
    rows = experiment_testers.c
    if arm is None:
        chosen = (rows.experiment == name) & (rows.unit == unit)
        connection.execute(delete(experiment_testers).where(chosen))
    else:
        known = testers(connection).get(name, {})
        if unit not in known and len(known) >= MAX_TESTERS:
            raise ConflictError(f"experiment {name} has {MAX_TESTERS:,} testers already")
        statement = upsert(connection, experiment_testers)
        statement = statement.values(experiment=name, unit=unit, arm=arm)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["experiment", "unit"], set_={"arm": arm}
            )
        )
    bump(connection, "experiments")


def testers(connection: Connection) -> dict[str, dict[str, str]]:
    """Experiment -> unit -> arm."""
    found: dict[str, dict[str, str]] = {}
    for name, unit, arm in connection.execute(
        select(experiment_testers).order_by(experiment_testers.c.unit)
    ):
        found.setdefault(name, {})[unit] = arm
    return found


def models_wanted(connection: Connection) -> list[tuple[str, str]]:
    """(version, SHA-256 of its manifest) of the versions that running experiments' arms answer with."""
    names = {
        arm.model_version
        for one in running(connection)
        for arm in one.spec.arms
        if arm.model_version is not None
    }
    columns = model_versions.c
    statement = select(columns.version, columns.manifest_sha256).where(
        columns.version.in_(names), columns.state != "deleted"
    )
    if not names:
        return []
    found = connection.execute(statement.order_by(columns.version))
    return [(row.version, row.manifest_sha256) for row in found]


def _read(row: Any) -> ExperimentRow:
    return ExperimentRow(
        name=row.name,
        state=row.state,
        spec=read_experiment(orjson.loads(row.spec)),
        ranges=tuple((low, high) for low, high in orjson.loads(row.buckets)),
        author=row.author,
        created_at_us=row.created_at_us,
        started_at_us=row.started_at_us,
        stopped_at_us=row.stopped_at_us,
        promoted=row.promoted,
    )
