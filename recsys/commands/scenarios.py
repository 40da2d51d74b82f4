"""How places of the shop are answered: every change is a new version, with its author and audit line."""

from __future__ import annotations

import re

from recsys.errors import ConflictError, InputError, NotFoundError
from recsys.events.times import rfc3339
from recsys.serving.item_snapshot import Catalogue, ItemSnapshot
from recsys.serving.steering.scenarios import Scenario
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.expression import Expression
from recsys.steering.expressions.reading import ItemCondition
from recsys.steering.scenario_spec import ScenarioSpec, check_titles
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import item_rows, scenario_rows
from recsys.storage.entities.audit_rows import Actor, add_audit, list_audit
from recsys.storage.entities.scenario_rows import StoredScenario
from recsys.storage.entities.stamps import read_stamps

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
MAX_SCENARIOS = 200  # that answer; each process holds them in memory


class ScenarioChangedError(ConflictError):
    """A scenario is not as it was read: somebody changed or deleted it in between."""

    def __init__(self, name: str, based_on: int, present: int | None, by: str, at_us: int) -> None:
        """`based_on`, `present`: versions, 0 and None where there is none; `by`, `at_us`: of the change."""
        self.based_on, self.present, self.by, self.at_us = based_on, present, by, at_us
        did = "deleted" if present is None else "changed"
        state = "no version of it answers" if present is None else f"its version {present} answers"
        super().__init__(f"{by} {did} scenario {name} at {rfc3339(at_us)}: {state}, not {based_on}")


def put_scenario(
    database: Database,
    actor: Actor,
    name: str,
    spec: ScenarioSpec,
    now_us: int,
    catalogue: Catalogue | None = None,
    based_on: int | None = None,
) -> StoredScenario:
    """Let `name` answer as `spec` says from the next request on; its new version.

    One that says what the present version says changes nothing and is that version. `catalogue`: of this
    process, where it holds one. `based_on`: the version that was read before, 0 where there was none; None
    overwrites whatever answers. Raises InputError where a rule, a title or a pin names what is not there,
    ScenarioChangedError where another version answers by now.
    """
    check_name(name)
    with database.begin() as connection:
        check_spec(connection, spec, catalogue or Catalogue(), now_us)
        scenario_rows.take_turns(connection)
        if based_on is not None:
            _check_unchanged(connection, name, based_on)
        return put_in(connection, actor, name, spec, now_us)


def put_in(
    connection: Connection,
    actor: Actor,
    name: str,
    spec: ScenarioSpec,
    now_us: int,
    note: str | None = None,
) -> StoredScenario:
    """`put_scenario` in a transaction that is open, of a spec that was checked. Raises ConflictError."""
    scenario_rows.take_turns(connection)
    before = scenario_rows.get_scenario(connection, name)
    if before is not None and before.spec == spec:
        return before
    if before is None and scenario_rows.count_scenarios(connection) >= MAX_SCENARIOS:
        raise ConflictError(f"there are {MAX_SCENARIOS} scenarios already: delete one first")
    stored = scenario_rows.add_version(connection, name, spec, actor.name, now_us, note)
    _add_audit(connection, actor, "scenario.put", stored, before, now_us)
    return stored


def delete_scenario(database: Database, actor: Actor, name: str, now_us: int) -> StoredScenario:
    """Let `name` be a label alone again; the version that answered until now. Its versions stay.

    Raises NotFoundError.
    """
    with database.begin() as connection:
        scenario_rows.take_turns(connection)
        before = scenario_rows.get_scenario(connection, name)
        if before is None:
            raise NotFoundError("scenario", name)
        scenario_rows.delete_scenario(connection, name)
        details = {"version": before.version}
        add_audit(connection, actor, "scenario.delete", name, now_us, details)
    return before


def roll_back(
    database: Database, actor: Actor, name: str, version: int | None, now_us: int
) -> StoredScenario:
    """Let `name` answer as its `version` says, under a new number; None: as the one before the present.

    A scenario that was deleted comes back so. Raises NotFoundError, or ConflictError where there is no
    version before.
    """
    with database.begin() as connection:
        scenario_rows.take_turns(connection)
        before = scenario_rows.get_scenario(connection, name)
        wanted = version
        if wanted is None:
            newest = scenario_rows.list_versions(
                connection, name, 1, None if before is None else before.version
            )
            if not newest and before is None:
                raise NotFoundError("scenario", name)
            if not newest:
                raise ConflictError(f"there is no version before {name}'s first")
            wanted = newest[0].version
        chosen = scenario_rows.get_version(connection, name, wanted)
        if before is not None and before.version == wanted:
            raise ConflictError(f"version {wanted} of {name} answers already")
        note = f"rollback to {wanted}"
        stored = scenario_rows.add_version(connection, name, chosen.spec, actor.name, now_us, note)
        _add_audit(connection, actor, "scenario.rollback", stored, before, now_us)
    return stored


def check_name(name: str) -> None:
    """Raise InputError where `name` may not be a scenario's."""
    if not NAME.fullmatch(name):
        expected = "expected 1 to 64 letters, digits, points, dashes or underscores"
        raise InputError("name", name, expected)


def check_spec(
    connection: Connection, spec: ScenarioSpec, catalogue: Catalogue, now_us: int
) -> None:
    """Raise InputError where a rule, a title or a pin names what is not there, with the nearest that is."""
    check_titles(spec)
    snapshot = catalogue.at(connection, read_stamps(connection).items)
    rules = Scenario(spec).rules
    for condition in (
        *rules.conditions,
        *(boost.condition for boost in rules.boosts),
        rules.promoted,
        rules.score,
    ):
        if condition is not None:
            _check_rule(connection, snapshot, condition, now_us)
    missing = item_rows.outside(connection, [pin.item_id for pin in spec.pins])
    for index, pin in enumerate(spec.pins):
        if pin.item_id in missing:
            expected = "expected an item of the catalogue"
            raise InputError(f"pins[{index}].item_id", pin.item_id, expected)


def _check_unchanged(connection: Connection, name: str, based_on: int) -> None:
    present = scenario_rows.get_scenario(connection, name)
    if present is not None and present.version != based_on:
        by, at_us = present.author, present.created_at_us
        raise ScenarioChangedError(name, based_on, present.version, by, at_us)
    if present is None and based_on:
        for line in list_audit(connection, 1, action="scenario.delete", subject=name):
            raise ScenarioChangedError(name, based_on, None, line.actor, line.at_us)
        raise ConflictError(f"no version of scenario {name} answers, not {based_on}")


def _check_rule(
    connection: Connection, snapshot: ItemSnapshot, condition: ItemCondition, now_us: int
) -> None:
    if isinstance(condition, Expression):
        snapshot.columns(connection, condition, Bindings(now_us, {}, {}))
    else:
        snapshot.meeting(connection, condition)


def _add_audit(
    connection: Connection,
    actor: Actor,
    action: str,
    stored: StoredScenario,
    before: StoredScenario | None,
    now_us: int,
) -> None:
    details = {
        "version": stored.version,
        "before": None if before is None else before.version,
        "note": stored.note,
    }
    add_audit(connection, actor, action, stored.name, now_us, details)
