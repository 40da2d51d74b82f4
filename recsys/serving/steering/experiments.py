"""The running experiments of a process: who is in which arm, and what that changes in what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from recsys.errors import InputError, NotFoundError
from recsys.events.identity import asker_key
from recsys.serving.answers import InArm, Request, ShadowArm
from recsys.serving.steering.scenarios import Scenario
from recsys.steering.assignment import bucket_of, drawn_arm, holds
from recsys.steering.experiment_spec import Arm
from recsys.steering.scenario_spec import ScenarioSpec, read_spec
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import experiment_rows, scenario_rows
from recsys.storage.entities.experiment_rows import ExperimentRow
from recsys.storage.entities.stamps import StampedCache, Stamps

log = structlog.get_logger(__name__)

PLAIN = Scenario(ScenarioSpec())
POPULAR = Scenario(ScenarioSpec(logic="popular"))  # what a hold-out sees


class Assigned(NamedTuple):
    """What the arms of whoever asks make of a request."""

    request: Request
    model_version: str | None = None  # that answers, if an arm says so
    is_changed: bool = False  # whether the answer is another than everybody's
    arms: tuple[InArm, ...] = ()
    shadows: tuple[ShadowArm, ...] = ()


@dataclass
class _Running:
    row: ExperimentRow
    testers: Mapping[str, str]  # unit -> arm
    versions: Mapping[int, Scenario]  # of its scenario, that arms show
    # Arm -> the scenario as everybody gets it, and as the arm's settings have it.
    varied: dict[str, tuple[Scenario, Scenario]] = field(default_factory=dict)


class Experiments:
    """The running experiments, held in memory under their stamp; safe to share between threads."""

    def __init__(self, database: Database, key: Callable[[], bytes | None]) -> None:
        """`key`: what arms are drawn with; None where it cannot be had."""
        self._key = key
        self._table = StampedCache[tuple[_Running, ...]](database, "experiments", _read, ())

    def assigned(
        self, request: Request, scenario: Scenario | None, stamps: Stamps | None
    ) -> Assigned:
        """What is asked for once the arms of whoever asks have their say.

        `scenario`: the stored one that the request names. `stamps`: as read for this request; without
        them, and with the database away, the experiments are those read last.
        """
        running = self._table.latest if stamps is None else self._table.at(stamps)
        usual = request if scenario is None else scenario.applied(request)
        unit = asker_key(request.user_id, request.session_id) if running else None
        if unit is None:
            return Assigned(usual)
        found = Assigned(usual)
        for one in running:
            spec = one.row.spec
            if spec.scenario is not None and spec.scenario != request.scenario:
                continue
            if request.from_page and not spec.include_pages:
                continue
            arm, counted = self._arm(one, unit)
            if arm is None:
                continue
            shown = InArm(one.row.name, arm.name, counted)
            if not arm.changes:
                found = found._replace(arms=(*found.arms, shown))
                continue
            changed = self._changed(one, arm, request, scenario, found.request)
            if arm.shadow:
                shadow = ShadowArm(one.row.name, arm.name, changed, arm.model_version)
                found = found._replace(arms=(*found.arms, shown), shadows=(*found.shadows, shadow))
                continue
            found = found._replace(
                request=changed,
                model_version=arm.model_version or found.model_version,
                is_changed=True,
                arms=(*found.arms, shown),
            )
        return found

    def _arm(self, one: _Running, unit: str) -> tuple[Arm | None, bool]:
        """The arm of a unit, None where it is not in the experiment; and whether it counts."""
        name, spec = one.row.name, one.row.spec
        if unit in one.testers:
            return spec.arm(one.testers[unit]), False
        key = self._key()
        if key is None or not holds(one.row.ranges, bucket_of(spec.space(name), unit, key)):
            return None, False
        return spec.arms[drawn_arm(name, unit, spec.weights, key)], True

    def _changed(
        self,
        one: _Running,
        arm: Arm,
        request: Request,
        scenario: Scenario | None,
        so_far: Request,
    ) -> Request:
        """The request as an arm has it; `so_far` where it changes nothing but the model."""
        if arm.hold_out:
            return POPULAR.applied(request)
        if arm.scenario_version is not None:
            version = one.versions.get(arm.scenario_version)
            return so_far if version is None else version.applied(request)
        if arm.settings is None:
            return so_far
        base = scenario or PLAIN
        known = one.varied.get(arm.name)
        if known is None or known[0] is not base:
            known = one.varied[arm.name] = (base, _varied(base, arm, one.row.name))
        return known[1].applied(request)


def _varied(base: Scenario, arm: Arm, name: str) -> Scenario:
    """The scenario with an arm's settings; as it is where they do not go with it any more."""
    try:
        spec = read_spec({**base.spec.plain, **(arm.settings or {})})
        made = Scenario(spec, base.version)
        _ = made.rules
    except InputError as error:
        log.warning("an arm cannot be shown", experiment=name, arm=arm.name, reason=str(error))
        return base
    return made


def _read(connection: Connection) -> tuple[_Running, ...]:
    testers = experiment_rows.testers(connection)
    found = []
    for row in experiment_rows.running(connection):
        versions = {}
        for arm in row.spec.arms:
            if arm.scenario_version is not None and row.spec.scenario is not None:
                try:
                    stored = scenario_rows.get_version(
                        connection, row.spec.scenario, arm.scenario_version
                    )
                except NotFoundError:
                    continue
                versions[stored.version] = Scenario(stored.spec, stored.version)
        found.append(_Running(row, testers.get(row.name, {}), versions))
    return tuple(found)
