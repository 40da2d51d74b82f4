"""The stored scenarios of a process, and how one of them and a request become what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from recsys.config.exclude_seen import both_seen
from recsys.serving.answers import Boost, Request, ScenarioRules
from recsys.steering.expressions.expression import parse_score
from recsys.steering.expressions.reading import read_condition
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import scenario_rows
from recsys.storage.entities.stamps import StampedCache, Stamps


@dataclass(frozen=True)
class Scenario:
    """A version of a scenario with its rules understood. `version`: None of one that is not stored."""

    spec: ScenarioSpec
    version: int | None = None

    @cached_property
    def rules(self) -> ScenarioRules:
        """The filter, the boosts, what is promoted and the score. Raises InputError where one cannot be read."""
        spec = self.spec
        promote = spec.promote
        return ScenarioRules(
            () if spec.filter is None else (read_condition(spec.filter, "filter"),),
            tuple(
                Boost(read_condition(one.when, f"boosts[{index}].when"), one.factor)
                for index, one in enumerate(spec.boosts)
            ),
            None if promote is None else read_condition(promote.when, "promote.when"),
            None if spec.score_by is None else parse_score(spec.score_by, "score_by"),
        )

    def applied(self, request: Request) -> Request:
        """What is asked for: what the scenario says, narrowed by the request.

        The smaller k and `max_per_category`, what either excludes, the filters of both.
        """
        spec = self.spec
        k, exclude_seen, most = request.k, request.exclude_seen, request.max_per_category
        if spec.k is not None:
            k = spec.k if "k" in request.left_open else min(k, spec.k)
        if spec.exclude_seen is not None:
            given = None if "exclude_seen" in request.left_open else exclude_seen
            exclude_seen = both_seen(spec.exclude_seen, given)
        if spec.max_per_category is not None:
            most = min(most or spec.max_per_category, spec.max_per_category)
        return replace(
            request,
            k=k,
            exclude_seen=exclude_seen,
            exclude_items=request.exclude_items.union(spec.exclude_items),
            max_per_category=most,
            scenario_spec=spec,
            scenario_version=self.version,
            scenario_rules=self.rules,
        )


class Scenarios:
    """The scenarios that answer, held in memory under their stamp; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._table = StampedCache[Mapping[str, Scenario]](database, "scenarios", _read, {})

    def find(self, name: str, stamps: Stamps | None) -> Scenario | None:
        """The scenario of that name; None where it is a label alone.

        `stamps`: as read from the database for this very request, where they were.
        """
        return self._table.at(stamps).get(name)


def _read(connection: Connection) -> dict[str, Scenario]:
    rows = scenario_rows.list_scenarios(connection)
    return {row.name: Scenario(row.spec, row.version) for row in rows}
