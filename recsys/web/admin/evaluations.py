"""A version's figures as pictures: metrics with intervals, the verdict, the learning curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from recsys.config import NETWORKS
from recsys.models.rankers import RANKERS
from recsys.models.version_facts import Figures, Verdict, VersionFacts
from recsys.storage.entities.version_rows import VersionRow
from recsys.web.admin import svg
from recsys.web.admin.formats import metric_name
from recsys.web.admin.svg import Chart, Interval, Series

METRICS = ("recall@20", "mrr@20", "ndcg@10")
# What may be promoted; see recsys.pipeline.
RANKINGS = ("blend", *NETWORKS, *reversed(RANKERS))


@dataclass(frozen=True)
class Version:
    """A registered version: its row, and what is kept of its training."""

    row: VersionRow
    facts: VersionFacts
    verdict: Verdict

    @classmethod
    def of(cls, row: VersionRow) -> Version:
        return cls(row, VersionFacts.from_json(row.facts), Verdict.from_json(row.verdict))

    @property
    def served(self) -> Mapping[str, float]:
        """The figures of what it serves; none where it was registered without an evaluation."""
        return self.facts.metrics.get("served", {})


@dataclass(frozen=True)
class Figure:
    """One metric with its interval, and the positions it rests on."""

    value: float | None
    low: float | None
    high: float | None
    positions: float | None


@dataclass(frozen=True)
class ShownBlend:
    """How a ranking is mixed."""

    name: str
    served: bool
    weights: Mapping[str, float]  # by component


def served(row: VersionRow, metric: str) -> Figure:
    """One metric of what the version serves."""
    found = Version.of(row).served
    low, high = found.get(f"{metric}_low"), found.get(f"{metric}_high")
    return Figure(found.get(metric), low, high, found.get("positions"))


def plots(version: Version) -> dict[str, Markup]:
    """By metric: what the version serves beside the champion it was judged against and every ranker."""
    metrics = version.facts.metrics
    order = sorted(metrics, key=lambda name: -metrics[name].get("mrr@20", 0.0))
    return {
        metric: svg.intervals(
            [
                _interval(name, metrics[name], metric)
                for name in order
                if f"{metric}_low" in metrics[name]
            ],
            f"{metric_name(metric)} with 95% intervals",
        )
        for metric in METRICS
    }


def verdict_plot(verdict: Verdict) -> Markup:
    """Candidate minus champion on the same positions, with intervals; empty where there was none."""
    return svg.intervals(
        [
            Interval(
                metric_name(metric), found["difference"], found["low"], found["high"], "diamond"
            )
            for metric, found in _differences(verdict).items()
        ],
        "Candidate minus champion, paired, with 95% intervals",
        zero=True,
        digits=4,
    )


def comparison_plots(one: Version, other: Version) -> dict[str, Markup]:
    """By metric, what both serve."""
    found = {}
    for metric in METRICS:
        rows = []
        for version, mark in ((one, "diamond"), (other, "ring")):
            figures = version.served
            if f"{metric}_low" in figures:
                low, high = figures[f"{metric}_low"], figures[f"{metric}_high"]
                name = version.row.version
                if figures.get("positions") is not None:
                    name += f" ({figures['positions']:,} positions)"
                rows.append(Interval(name, figures[metric], low, high, mark))
        found[metric] = svg.intervals(rows, f"{metric_name(metric)} with 95% intervals")
    return found


def paired_plot(one: Version, other: Version) -> tuple[str, Markup] | None:
    """The paired difference of the two, where one was judged against the other: what it is, plot."""
    for candidate, champion in ((one, other), (other, one)):
        if candidate.facts.judged_against == champion.row.version:
            names = f"{candidate.row.version} minus {champion.row.version}"
            return names, verdict_plot(candidate.verdict)
    return None


def learning_curve(version: Version) -> dict[str, Chart]:
    """Loss and validation by epoch; two charts, because their units differ."""
    name, curve = version.row.version, version.facts.learning_curve
    epochs = curve.epochs if curve is not None else []
    x = [float(one.epoch) for one in epochs]
    common: dict[str, Any] = {"x_kind": "number", "x_label": "epoch"}
    return {
        "loss": Chart(
            f"loss-{name}",
            "Training loss by epoch",
            x,
            [Series("loss", [one.loss for one in epochs])],
            "" if epochs else "No training curve: this version ranks without a network.",
            **common,
        ),
        "validation": Chart(
            f"validation-{name}",
            "Validation by epoch",
            x,
            [Series("MRR@20", [one.validation for one in epochs])],
            "" if any(one.validation for one in epochs) else "No epoch was validated.",
            **common,
        ),
    }


def blends(version: Version) -> list[ShownBlend]:
    """How the rankings are mixed, the one that is served first."""
    found, ranking = version.facts.blends, version.row.ranking
    return [
        ShownBlend(name, name == ranking, found[name].weights)
        for name in sorted(found, key=lambda name: name != ranking)
    ]


def settings_changed(one: Version, other: Version) -> list[tuple[str, Any, Any]]:
    """(key, value of the one, value of the other) where they differ."""
    first, second = (_flat(version.facts.settings) for version in (one, other))
    return [
        (key, first.get(key), second.get(key))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in settings.items()
        for key, value in values.items()
    }


def _differences(verdict: Verdict) -> Figures:
    """By metric: difference, low, high."""
    given = verdict.numbers.versus_champion or {}
    return {metric: given[metric] for metric in METRICS if "low" in given.get(metric, {})}


def _interval(name: str, figures: Mapping[str, float], metric: str) -> Interval:
    mark = {"served": "diamond", "champion": "ring"}.get(name, "dot")
    value, low, high = (figures[f"{metric}{end}"] for end in ("", "_low", "_high"))
    return Interval(name.replace("_", " "), value, low, high, mark)
