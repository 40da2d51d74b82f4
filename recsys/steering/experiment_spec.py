"""An experiment: what each of its arms changes, and who is in it.

The dataclasses are the JSON that REST, the command line and the database hold; what is not given has its
default, and an unknown name is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from recsys.errors import InputError, within
from recsys.steering.scenario_spec import first_problem, read_spec
from recsys.text_rules import text_problem

State = Literal["draft", "running", "stopped"]
Metric = Literal["click_through", "conversion", "value"]
METRICS: tuple[Metric, ...] = ("click_through", "conversion", "value")

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MAX_ARMS = 10
MAX_NOTE = 500
MAX_WEIGHT = 1_000
_STRICT = ConfigDict(extra="forbid")


def check_name(field: str, value: str) -> str:
    """Raises InputError unless `value` may name an experiment, an arm or a group."""
    if not NAME.fullmatch(value):
        expected = "expected 1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit"
        raise InputError(field, value, expected)
    return value


def _plain_text(value: str) -> str:
    if value and (problem := text_problem(value, MAX_NOTE)):
        raise ValueError(problem)
    return value


_Scenario = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_plain_text)]


@dataclass(frozen=True)
class Arm:
    """One way to answer. What changes nothing answers as everybody else is answered."""

    name: str
    weight: Annotated[float, Field(gt=0, le=MAX_WEIGHT, allow_inf_nan=False)] = 1.0
    scenario_version: Annotated[int, Field(ge=1)] | None = None  # of the experiment's scenario
    model_version: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    settings: dict[str, Any] | None = None  # parts of a scenario that are to be otherwise
    hold_out: bool = False  # popular items, for what all of it is worth
    shadow: bool = False  # ranked and logged, not shown: its units are answered as everybody else

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    @property
    def changes(self) -> frozenset[str]:
        """What it changes: 'model', 'scenario', 'all', or the names of settings."""
        found = set(self.settings or ())
        if self.model_version is not None:
            found.add("model")
        if self.scenario_version is not None:
            found.add("scenario")
        if self.hold_out:
            found.add("all")
        return frozenset(found)


@dataclass(frozen=True)
class ExperimentSpec:
    """What is tried. Raises InputError where its parts do not go together.

    >>> ExperimentSpec((Arm("now"), Arm("none", hold_out=True)), allocation=0.1).weights
    (1.0, 1.0)
    """

    arms: Annotated[
        tuple[Arm, ...], Field(min_length=2, max_length=MAX_ARMS)
    ]  # first: compared with
    allocation: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0  # share of all units
    metric: Metric = "conversion"  # what decides
    scenario: _Scenario | None = None  # whose answers alone are part of it; None: all
    group: str | None = None  # experiments of one group share no unit
    include_pages: bool = False  # asked for with a key that stands in pages, which anyone can use
    note: Annotated[str, Field(max_length=MAX_NOTE), AfterValidator(_plain_text)] = ""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        if self.group is not None:
            check_name("group", self.group)
        names: set[str] = set()
        for place, arm in enumerate(self.arms):
            where = f"arms[{place}]"
            check_name(f"{where}.name", arm.name)
            if arm.name in names:
                raise InputError(f"{where}.name", arm.name, "expected each name once")
            names.add(arm.name)
            self._check_arm(where, arm)
        if self.arms and self.arms[0].shadow:
            raise InputError("arms[0].shadow", True, "the others are compared with the first arm")
        if not any(arm.changes for arm in self.arms):
            raise InputError("arms", len(self.arms), "expected an arm that changes something")

    def _check_arm(self, where: str, arm: Arm) -> None:
        given = [
            name
            for name in ("scenario_version", "model_version", "settings", "hold_out")
            if getattr(arm, name)
        ]
        if len(given) > 1:
            raise InputError(
                f"{where}.{given[1]}", getattr(arm, given[1]), f"{given[0]} is given too"
            )
        if arm.shadow and not given:
            raise InputError(f"{where}.shadow", True, "expected something that is otherwise in it")
        if arm.scenario_version is not None and self.scenario is None:
            expected = "expected `scenario` beside it, which it is a version of"
            raise InputError(f"{where}.scenario_version", arm.scenario_version, expected)
        if arm.settings is not None:
            _check_settings(f"{where}.settings", arm.settings)

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(arm.weight for arm in self.arms)

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def space(self, name: str) -> str:
        """The space of buckets that an experiment of this name draws its units from."""
        return f"of {name}" if self.group is None else f"group {self.group}"

    @property
    def plain(self) -> dict[str, Any]:
        """JSON-ready; what has its default is left out of the arms."""
        whole: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        arms = [
            {name: value for name, value in arm.items() if name == "name" or value != _ARM[name]}
            for arm in whole["arms"]
        ]
        return {**whole, "arms": arms}


def _check_settings(where: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError unless they are parts of a scenario."""
    if not settings:
        raise InputError(where, 0, "expected at least one setting")
    if "rows" in settings:
        raise InputError(f"{where}.rows", "rows", "expected a scenario version for other rows")
    with within(where):
        read_spec(settings)


def read_experiment(given: Mapping[str, Any]) -> ExperimentSpec:
    """An experiment from JSON. Raises InputError, of the first field that is not as expected.

    >>> read_experiment({"arms": [{"name": "a"}, {"name": "b", "size": 1}]})
    Traceback (most recent call last):
    recsys.errors.InputError: arms[1].size = 1: Unexpected keyword argument
    """
    try:
        return _ADAPTER.validate_python(given)
    except ValidationError as error:
        raise first_problem(error, "experiment") from None


_ADAPTER = TypeAdapter(ExperimentSpec)
_ARM: dict[str, Any] = TypeAdapter(Arm).dump_python(Arm("any"), mode="json")
