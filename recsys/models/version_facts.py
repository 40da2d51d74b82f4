"""Facts of how a version came to be, kept in its manifest and in its row under the same keys.

Versions of earlier releases lack keys; they read as the defaults here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from recsys.config.exclude_seen import DEFAULT
from recsys.events.seen_returns import Returns, SeenDefault
from recsys.models.blend import Blend

Figures = Mapping[str, Mapping[str, float]]  # a ranking or group -> a metric -> its value


@dataclass(frozen=True)
class Check:
    """One figure of the data, its limit, and whether it is within."""

    name: str  # the key in [training] that holds the limit
    value: float
    limit: float
    passed: bool
    meaning: str

    def __str__(self) -> str:
        mark = "ok" if self.passed else "FAILED"
        return f"{mark}: {self.meaning}: {self.value:,.6g} (training.{self.name} = {self.limit:,g})"


@dataclass(frozen=True)
class AdoptedSetting:
    """A value that a search found, and the one that was configured when it was adopted."""

    value: Any
    configured: Any


Adopted = Mapping[str, Mapping[str, AdoptedSetting]]  # section -> key


@dataclass(frozen=True)
class EpochRecord:
    """One point of the learning curve."""

    epoch: int
    loss: float  # nats a target
    validation: float | None
    seconds: float
    events_per_second: float


@dataclass
class LearningCurve:
    """The epochs of a training, and which of them validated best."""

    epochs: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    events_per_second: float = 0.0
    seconds: float = 0.0

    def close(self) -> None:
        """Add up the time of all epochs."""
        self.seconds = sum(record.seconds for record in self.epochs)
        self.events_per_second = float(
            np.average(
                [record.events_per_second for record in self.epochs],
                weights=[max(record.seconds, 1e-9) for record in self.epochs],
            )
        )

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> LearningCurve:
        """Of `asdict`, which is JSON-ready."""
        return cls(**{**kept, "epochs": [EpochRecord(**one) for one in kept.get("epochs", ())]})


@dataclass(frozen=True)
class WindowPass:
    """What became of the short pass over the test window after the verdict."""

    learned: bool  # False where there was no pass, or where it did harm
    mrr_before: float | None = None  # served MRR@20 on a sample of the window
    mrr_after: float | None = None
    new_items: int | None = None  # that got rows of their own
    events: int | None = None  # of the window


@dataclass(frozen=True)
class EvaluationWindow:
    """The newest events, by which the version was judged."""

    from_us: int = 0
    positions: int = 0  # that were ranked
    training: WindowPass = WindowPass(learned=False)


@dataclass(frozen=True)
class GateNumbers:
    """The metrics a verdict rests on."""

    positions: int = 0
    seen_positions: int = 0  # those with a target that training has seen
    validation_positions: int = 0  # that the ranking was chosen by
    candidate: Mapping[str, float] = field(default_factory=dict)
    champion: Mapping[str, float] | None = None
    rankers: Figures = field(default_factory=dict)
    versus_champion: Figures | None = None  # metric -> difference, low, high; None = not compared

    def to_json(self) -> dict[str, Any]:
        values = dict(vars(self))
        if self.versus_champion is None:
            del values["versus_champion"]
        return values


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate goes live, why, and the numbers behind it."""

    promote: bool
    reason: str
    numbers: GateNumbers = GateNumbers()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; `from_json` takes it back."""
        return {**vars(self), "numbers": self.numbers.to_json()}

    @classmethod
    def from_json(cls, verdict: Mapping[str, Any]) -> Verdict:
        """The verdict of a row of this or an earlier release."""
        numbers = verdict.get("numbers") or {}
        known = {key: numbers[key] for key in GateNumbers.__dataclass_fields__ if key in numbers}
        promote, reason = verdict.get("promote", False), verdict.get("reason", "")
        return cls(promote, reason, GateNumbers(**known))


@dataclass(frozen=True)
class VersionFacts:
    """What a version keeps of its training."""

    adopted: Adopted = field(default_factory=dict)
    checks: Sequence[Check] = ()
    judged_against: str | None = None  # the champion's version
    metrics: Figures = field(default_factory=dict)  # by ranking, with intervals
    breakdown: Figures = field(default_factory=dict)  # by group of positions
    live: Figures = field(default_factory=dict)  # by system, all positions, as they would be served
    validation: Figures = field(default_factory=dict)  # by ranking
    learning_curve: LearningCurve | None = None
    blends: Mapping[str, Blend] = field(default_factory=dict)  # by ranking
    cold_started_us: int = 0  # when its weights, or its champion's, were last started from nothing
    content_explained: float | None = None  # of held-out items' vectors; None: no map is kept
    seen_items: str = ""  # whether items seen before are recommended again, as the log has it
    seen: SeenDefault | None = None  # what `exclude_seen` is where nobody says otherwise
    network_bytes: int | None = None
    item_matrix: Figures = field(default_factory=dict)  # cost of each form of the item table
    peak_mib: float | None = None  # memory of the training's process
    window: EvaluationWindow = EvaluationWindow()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # section -> key
    data_end_us: int = 0  # of the newest event that was learned; 0 = unknown

    @property
    def exclude_seen(self) -> str:
        """What `exclude_seen = "auto"` stands for: what logs call buying, where nothing was learned."""
        return DEFAULT if self.seen is None else self.seen.exclude_seen

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; `from_json` takes it back."""
        window, done = self.window, asdict(self.window.training)
        return {
            **vars(self),
            "adopted": {
                section: {key: asdict(one) for key, one in values.items()}
                for section, values in self.adopted.items()
            },
            "checks": [asdict(check) for check in self.checks],
            "learning_curve": asdict(self.learning_curve) if self.learning_curve else {},
            "seen": None if self.seen is None else asdict(self.seen),
            "blends": {name: blend.plain() for name, blend in self.blends.items()},
            "window": {
                "from_us": window.from_us,
                "positions": window.positions,
                **{key: value for key, value in done.items() if value is not None},
            },
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> VersionFacts:
        """The facts of a manifest or row of this or an earlier release."""
        known = {key: facts[key] for key in cls.__dataclass_fields__ if facts.get(key) is not None}
        known["learning_curve"] = None
        if curve := facts.get("learning_curve"):
            known["learning_curve"] = LearningCurve.from_json(curve)
        if "blends" in known:
            known["blends"] = {name: Blend(**one) for name, one in known["blends"].items()}
        if "adopted" in known:
            known["adopted"] = {
                section: {key: AdoptedSetting(**one) for key, one in values.items()}
                for section, values in known["adopted"].items()
            }
        if "checks" in known:
            known["checks"] = tuple(Check(**check) for check in known["checks"])
        if seen := known.get("seen"):
            by_type = {name: Returns(**one) for name, one in seen["by_type"].items()}
            known["seen"] = SeenDefault(**{**seen, "by_type": by_type})
        if "window" in known:
            window = dict(known["window"])
            from_us, positions = window.pop("from_us", 0), window.pop("positions", 0)
            done = WindowPass(**{"learned": False, **window})
            known["window"] = EvaluationWindow(from_us, positions, done)
        return cls(**known)
