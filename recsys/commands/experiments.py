"""Experiments: drafted, started, widened, stopped, promoted, and who tests which arm.

draft -> running -> stopped. What a running experiment's arms are cannot be changed, only how many units
are in it, and that number only grows.
"""

from __future__ import annotations

from dataclasses import replace

from recsys.commands import deployments, scenarios
from recsys.errors import ConflictError, InputError, NotFoundError, unknown, within
from recsys.serving.item_snapshot import Catalogue
from recsys.steering.assignment import widened
from recsys.steering.experiment_report import make_report
from recsys.steering.experiment_spec import Arm, ExperimentSpec, check_name
from recsys.steering.scenario_spec import ScenarioSpec, read_spec
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import (
    experiment_rows,
    experiment_unit_rows,
    scenario_rows,
    tombstone_rows,
    version_rows,
)
from recsys.storage.entities.audit_rows import Actor, add_audit
from recsys.storage.entities.experiment_rows import ExperimentRow

MAX_RUNNING = 20
MAX_MODELS = 3  # versions beside champion and control that every process holds for experiments


def draft(
    database: Database, actor: Actor, name: str, spec: ExperimentSpec, now_us: int
) -> ExperimentRow:
    """Write down an experiment that nobody is in yet; a draft of the same name is replaced.

    Raises InputError for its name or an arm that names what is not there, ConflictError where one of
    that name runs or ran.
    """
    check_name("name", name)
    with database.begin() as connection:
        experiment_rows.take_turns(connection)
        known = experiment_rows.find_experiment(connection, name)
        if known is not None and known.state != "draft":
            raise ConflictError(f"experiment {name} is {known.state}; its arms cannot be changed")
        _check_arms(connection, spec, now_us)
        experiment_rows.put_draft(connection, name, spec, actor.name, now_us)
        add_audit(connection, actor, "experiment.draft", name, now_us, spec.plain)
        return experiment_rows.get_experiment(connection, name)


def start(
    database: Database, actor: Actor, name: str, allocation: float | None, now_us: int
) -> ExperimentRow:
    """Begin a draft, or widen a running experiment to `allocation`; whoever is in stays in the same arm.

    Raises NotFoundError; ConflictError where it was stopped, too little room is left in its group, or
    another that runs changes the same answers in the same way.
    """
    with database.begin() as connection:
        experiment_rows.take_turns(connection)
        one = experiment_rows.get_experiment(connection, name)
        if one.state == "stopped":
            raise ConflictError(f"experiment {name} was stopped; draft another one")
        others = [each for each in experiment_rows.running(connection) if each.name != name]
        if one.state == "draft":
            _check_arms(connection, one.spec, now_us)
            _check_others(one, others)
        wanted = one.spec.allocation if allocation is None else allocation
        spec = replace(one.spec, allocation=wanted)
        space = spec.space(name)
        taken = [each.ranges for each in others if each.spec.space(each.name) == space]
        ranges = widened(one.ranges, taken, wanted)
        values = {"spec": spec, "buckets": ranges, "state": "running"}
        began = {"started_at_us": now_us} if one.state == "draft" else {}
        experiment_rows.change(connection, name, **values, **began)
        action = "experiment.start" if began else "experiment.ramp"
        add_audit(connection, actor, action, name, now_us, {"allocation": wanted})
        return experiment_rows.get_experiment(connection, name)


def stop(database: Database, actor: Actor, name: str, now_us: int) -> ExperimentRow:
    """End a running experiment: everybody is answered alike again. Raises NotFoundError, ConflictError."""
    with database.begin() as connection:
        experiment_rows.take_turns(connection)
        one = experiment_rows.get_experiment(connection, name)
        if one.state != "running":
            raise ConflictError(f"experiment {name} does not run: it is {one.state}")
        _stop_in(connection, actor, name, now_us)
        return experiment_rows.get_experiment(connection, name)


def promote(
    database: Database, actor: Actor, name: str, arm_name: str | None, now_us: int
) -> tuple[ExperimentRow, str]:
    """Give an arm to everybody, and end the experiment; without a name, the arm that is surely better.

    A model version becomes the champion, whatever the gate said of it; a scenario version, or the
    current one with an arm's settings, the newest version of its scenario. Raises NotFoundError, InputError
    for an arm that is not there or names what is there no more, ConflictError where no arm is surely better, or the arm is nothing that everybody can be given.
    """
    with database.begin() as connection:
        experiment_rows.take_turns(connection)
        one = experiment_rows.get_experiment(connection, name)
        if one.state == "draft":
            raise ConflictError(f"experiment {name} was not started")
        if arm_name is None:
            arm_name = make_report(one.spec, experiment_unit_rows.sums(connection, name)).leader
            if arm_name is None:
                raise ConflictError(
                    "no arm is surely better than the first; name the one to promote"
                )
        arm = _arm(one, arm_name)
        _give_to_everybody(connection, actor, one, arm, now_us)
        if one.state == "running":
            _stop_in(connection, actor, name, now_us)
        experiment_rows.change(connection, name, promoted=arm.name)
        add_audit(connection, actor, "experiment.promote", name, now_us, {"arm": arm.name})
        return experiment_rows.get_experiment(connection, name), arm.name


def set_tester(
    database: Database, actor: Actor, name: str, unit: str, arm_name: str | None, now_us: int
) -> None:
    """Show an arm to one user or session ('u:<user_id>', 's:<session_id>') whatever the hash says, uncounted;
    None: no more. Raises NotFoundError, InputError, ConflictError where it was stopped.
    """
    with database.begin() as connection:
        experiment_rows.take_turns(connection)
        one = experiment_rows.get_experiment(connection, name)
        if one.state == "stopped":
            raise ConflictError(f"experiment {name} was stopped")
        if arm_name is not None:
            _arm(one, arm_name)
        experiment_rows.put_tester(connection, name, unit, arm_name)
        who = tombstone_rows.pseudonym(connection, unit)
        add_audit(
            connection, actor, "experiment.tester", name, now_us, {"arm": arm_name, "of": who}
        )


def delete_draft(database: Database, actor: Actor, name: str, now_us: int) -> None:
    """Delete a draft. Raises NotFoundError, ConflictError where it was started: its report stays."""
    with database.begin() as connection:
        experiment_rows.take_turns(connection)
        one = experiment_rows.get_experiment(connection, name)
        if one.state != "draft":
            raise ConflictError(f"experiment {name} is {one.state}; only drafts are deleted")
        experiment_rows.delete_draft(connection, name)
        add_audit(connection, actor, "experiment.delete", name, now_us)


def _promote_scenario(
    connection: Connection, actor: Actor, one: ExperimentRow, arm: Arm, now_us: int
) -> None:
    name = one.spec.scenario or ""
    changed = "settings" if arm.scenario_version is None else "scenario_version"
    with within(f"arms[{one.spec.arms.index(arm)}].{changed}"):
        if arm.scenario_version is None:
            spec = _varied(connection, name, arm)
        else:
            spec = scenario_rows.get_version(connection, name, arm.scenario_version).spec
        scenarios.check_spec(connection, spec, Catalogue(), now_us)
    note = f"arm {arm.name} of experiment {one.name}"
    scenarios.put_in(connection, actor, name, spec, now_us, note)


def _varied(connection: Connection, scenario: str, arm: Arm) -> ScenarioSpec:
    """The scenario as it is, with an arm's settings. Raises InputError where they do not go together."""
    stored = scenario_rows.get_scenario(connection, scenario)
    base = {} if stored is None else stored.spec.plain
    return read_spec({**base, **(arm.settings or {})})


def _stop_in(connection: Connection, actor: Actor, name: str, now_us: int) -> None:
    experiment_rows.change(connection, name, state="stopped", stopped_at_us=now_us, buckets=())
    add_audit(connection, actor, "experiment.stop", name, now_us)


def _arm(one: ExperimentRow, name: str) -> Arm:
    found = one.spec.arm(name)
    if found is None:
        known = [arm.name for arm in one.spec.arms]
        raise unknown("arm", name, f"an arm of {one.name}", known)
    return found


def _check_arms(connection: Connection, spec: ExperimentSpec, now_us: int) -> None:
    """Raise InputError for an arm that names what is not there, or more than processes can hold."""
    catalogue = Catalogue()
    for place, arm in enumerate(spec.arms):
        if arm.settings is not None:
            with within(f"arms[{place}].settings"):
                if spec.scenario is not None:
                    _varied(connection, spec.scenario, arm)
                scenarios.check_spec(connection, read_spec(arm.settings), catalogue, now_us)
        if spec.scenario is not None and arm.scenario_version is not None:
            try:
                scenario_rows.get_version(connection, spec.scenario, arm.scenario_version)
            except NotFoundError:
                where = f"arms[{place}].scenario_version"
                expected = f"expected a version of scenario {spec.scenario}"
                raise InputError(where, arm.scenario_version, expected) from None
    named = {arm.model_version for arm in spec.arms if arm.model_version is not None}
    if not named:
        return
    states = {row.version: row.state for row in version_rows.list_versions(connection, 10_000)}
    for place, arm in enumerate(spec.arms):
        where, version = f"arms[{place}].model_version", arm.model_version
        if version is not None and version not in states:
            raise unknown(where, version, "a registered version", list(states))
        if version is not None and states[version] == "deleted":
            raise InputError(where, version, "its files were deleted")
    if len(named) > MAX_MODELS:
        raise InputError("arms", len(named), f"expected at most {MAX_MODELS} model versions")


def _check_others(one: ExperimentRow, others: list[ExperimentRow]) -> None:
    """Raise ConflictError where `one` cannot run beside those that run."""
    if len(others) >= MAX_RUNNING:
        raise ConflictError(f"{MAX_RUNNING} experiments run already")
    models = {
        arm.model_version for each in (one, *others) for arm in each.spec.arms if arm.model_version
    }
    if len(models) > MAX_MODELS:
        raise ConflictError(
            f"experiments that run would need {len(models)} model versions in memory"
        )
    changes = _changes(one.spec)
    for each in others:
        apart = one.spec.group is not None and one.spec.group == each.spec.group
        apart = apart or (
            None not in (one.spec.scenario, each.spec.scenario)
            and (one.spec.scenario != each.spec.scenario)
        )
        both = changes & _changes(each.spec)
        if not apart and both:
            raise ConflictError(
                f"experiment {each.name}, which runs, changes {', '.join(sorted(both))} too: put both "
                "into one group, so that no unit is in both"
            )


def _changes(spec: ExperimentSpec) -> frozenset[str]:
    """What the arms change; a hold-out or another scenario version changes whatever settings do."""
    found = frozenset[str]().union(*(arm.changes for arm in spec.arms))
    if found - {"model"}:
        found |= {"answers"}
    return found | {"model", "answers"} if "all" in found else found


def _give_to_everybody(
    connection: Connection, actor: Actor, one: ExperimentRow, arm: Arm, now_us: int
) -> None:
    if arm.model_version is not None:
        reason = f"arm {arm.name} of experiment {one.name}"
        deployments.promote_in(connection, actor, arm.model_version, reason, now_us)
    elif one.spec.scenario is not None and (arm.scenario_version or arm.settings):
        _promote_scenario(connection, actor, one, arm, now_us)
    elif arm.changes:
        raise ConflictError(
            f"arm {arm.name} is nothing that everybody can be given: it changes "
            f"{', '.join(sorted(arm.changes))}"
        )
