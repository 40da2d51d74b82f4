"""A version's figures as pictures: metrics with intervals, the verdict, the learning curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from recsys.config import NETWORKS
from recsys.models.rankers import RANKERS
from recsys.storage.entities.version_rows import VersionRow
from recsys.web.admin import svg
from recsys.web.admin.svg import Chart, Interval, Series

METRICS = ("recall@20", "mrr@20", "ndcg@10")
# What may be promoted; see recsys.pipeline.
RANKINGS = ("blend", *NETWORKS, *reversed(RANKERS))


def served(row: VersionRow, metric: str) -> dict[str, float | None]:
    """One metric of what the version serves: value, low, high, and the positions it rests on."""
    found = row.facts.get("metrics", {}).get("served", {})
    return {
        "value": found.get(metric),
        "low": found.get(f"{metric}_low"),
        "high": found.get(f"{metric}_high"),
        "positions": found.get("positions"),
    }


def plots(row: VersionRow) -> dict[str, Markup]:
    """By metric: what the version serves beside the champion it was judged against and every ranker."""
    metrics = row.facts.get("metrics", {})
    order = sorted(metrics, key=lambda name: -metrics[name].get("mrr@20", 0.0))
    return {
        metric: svg.intervals(
            [
                _interval(name, metrics[name], metric)
                for name in order
                if f"{metric}_low" in metrics[name]
            ],
            f"{metric} with 95% intervals",
        )
        for metric in METRICS
    }


def verdict_plot(verdict: Mapping[str, Any]) -> Markup:
    """Candidate less champion on the same positions, with intervals; empty where there was none."""
    return svg.intervals(
        [
            Interval(metric, found["difference"], found["low"], found["high"], "diamond")
            for metric, found in _differences(verdict).items()
        ],
        "Candidate less champion, paired, with 95% intervals",
        zero=True,
        digits=4,
    )


def comparison_plots(one: VersionRow, other: VersionRow) -> dict[str, Markup]:
    """By metric, what both serve."""
    found = {}
    for metric in METRICS:
        rows = []
        for row, mark in ((one, "diamond"), (other, "ring")):
            figures = row.facts.get("metrics", {}).get("served", {})
            if f"{metric}_low" in figures:
                low, high = figures[f"{metric}_low"], figures[f"{metric}_high"]
                name = row.version
                if figures.get("positions") is not None:
                    name += f" ({figures['positions']:,} positions)"
                rows.append(Interval(name, figures[metric], low, high, mark))
        found[metric] = svg.intervals(rows, f"{metric} with 95% intervals")
    return found


def paired_plot(one: VersionRow, other: VersionRow) -> tuple[str, Markup] | None:
    """The paired difference of the two, where one was judged against the other: what it is, plot."""
    for candidate, champion in ((one, other), (other, one)):
        if candidate.facts.get("judged_against") == champion.version:
            picture = verdict_plot(candidate.verdict)
            return f"{candidate.version} less {champion.version}", picture
    return None


def learning_curve(row: VersionRow) -> dict[str, Chart]:
    """Loss and validation by epoch; two charts, because their units differ."""
    epochs = (row.facts.get("learning_curve") or {}).get("epochs") or []
    x = [float(one["epoch"]) for one in epochs]
    common: dict[str, Any] = {"x_kind": "number", "x_label": "epoch"}
    return {
        "loss": Chart(
            f"loss-{row.version}",
            "Training loss by epoch",
            x,
            [Series("loss", [one["loss"] for one in epochs])],
            "" if epochs else "This version was not trained: it ranks without a network.",
            **common,
        ),
        "validation": Chart(
            f"validation-{row.version}",
            "Validation by epoch",
            x,
            [Series("mrr@20", [one.get("validation") for one in epochs])],
            "" if any(one.get("validation") for one in epochs) else "No epoch was validated.",
            **common,
        ),
    }


def blend(row: VersionRow) -> list[dict[str, Any]]:
    """How the rankings are mixed, the one that is served first."""
    blends = row.facts.get("blends", {})
    return [
        {"name": name, "served": name == row.ranking, **blends[name]}
        for name in sorted(blends, key=lambda name: name != row.ranking)
    ]


def settings_changed(one: VersionRow, other: VersionRow) -> list[tuple[str, Any, Any]]:
    """(key, value of the one, value of the other) where they differ."""
    first, second = (_flat(row.facts.get("settings", {})) for row in (one, other))
    return [
        (key, first.get(key), second.get(key))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in settings.items()
        for key, value in values.items()
    }


def _differences(verdict: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By metric: difference, low, high."""
    given = verdict.get("numbers", {}).get("versus_champion") or {}
    return {
        metric: given[metric]
        for metric in METRICS
        if isinstance(given.get(metric), dict) and "low" in given[metric]
    }


def _interval(name: str, figures: Mapping[str, float], metric: str) -> Interval:
    mark = {"served": "diamond", "champion": "ring"}.get(name, "dot")
    value, low, high = (figures[f"{metric}{end}"] for end in ("", "_low", "_high"))
    return Interval(name.replace("_", " "), value, low, high, mark)
