"""Compare networks: trained in the same loop, ranked on identical positions, each unblended and with
the same blend, beside every ranker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.config import NETWORKS, Settings
from recsys.errors import InputError, NotEnoughDataError
from recsys.events.time_split import Positions, baskets_from, positions_from
from recsys.events.vocabulary import FIRST_ITEM, Vocabulary
from recsys.models.blend import BLEND
from recsys.models.bundle import Bundle
from recsys.models.version_facts import LearningCurve
from recsys.training.evaluate import scorer_of, window_positions
from recsys.training.event_log import EventLog
from recsys.training.fit import FittedModel, fit_model
from recsys.training.report import (
    RankedPositions,
    Scorer,
    breakdown,
    difference,
    rank_positions,
    rounded,
    summarise,
    text_table,
)
from recsys.training.run import Run

ExtraScorers = Callable[[Vocabulary], Mapping[str, Scorer]]

RATES = (1.0, 0.3)  # shares of the learning rate that every network is tried with


@dataclass(frozen=True)
class ComparisonData:
    """The log that trains, and what is ranked after it."""

    log: EventLog
    test: EventLog | None  # a file of its own; None where the log is cut
    cut_us: int


@dataclass(frozen=True)
class NetworkComparison:
    """Figures averaged over the seeds; `served` is what the first network would serve."""

    results: Mapping[str, Mapping[str, float]]  # a ranking -> its metrics, with intervals
    served_minus: Mapping[str, Any]  # a ranking -> a metric -> difference, low, high
    breakdown: Mapping[str, Mapping[str, float]]  # of the last seed's `served`
    train_seconds: float  # of the first network, choosing its blend included
    network_seconds: Mapping[str, float]  # of each network's epochs alone
    events_per_second: int
    learning_rates: Mapping[str, float]
    positions: int  # whose target training has seen
    positions_all: int
    target: str  # 'next_item' or 'next_basket'
    seeds: int
    served_by: Sequence[str]  # the ranking served, by seed


@dataclass(frozen=True)
class _SeedResult:
    """The networks of one seed, the first of which serves, ranked beside every ranker."""

    positions: Positions
    ranked: Mapping[str, RankedPositions]  # 'served', each network and its blend, each ranker
    served_by: str
    curves: Mapping[str, LearningCurve]
    seconds: Mapping[str, float]  # of each network's training, choosing its blend included


def network_names(text: str) -> list[str]:
    """Networks named in a list by commas. Raises InputError for what is none, or named twice.

    >>> network_names("lstm, gru")
    ['lstm', 'gru']
    """
    chosen = [name.strip() for name in text.split(",")]
    for name in chosen:
        if name not in NETWORKS or chosen.count(name) > 1:
            known = ", ".join(NETWORKS)
            raise InputError("--networks", name, f"expected some of {known}, each once")
    return chosen


def compare_networks(
    settings: Settings,
    data: ComparisonData,
    seeds: int,
    networks: Sequence[str],
    run: Run,
    extra: ExtraScorers = lambda vocabulary: {},
) -> NetworkComparison:
    """Rank identical positions by every network and ranker, over `seeds` trainings.

    `extra` gives scorers that are shown beside the others, such as a simulation's oracle. Each
    network is trained at every rate of RATES with the first seed and keeps the one that validation
    likes best: equal budgets. Raises NotEnoughDataError where no position is left to rank.
    """
    rates = dict.fromkeys(networks, 1.0)
    if len(networks) > 1:
        for name in networks:
            rates[name] = _best_rate(data, settings, name, run)
            run.say(f"{name}: learning rate {settings.training.learning_rate * rates[name]:g}")
    draws, seed = settings.evaluation.bootstrap_draws, settings.training.seed
    tables: list[dict[str, dict[str, float]]] = []
    versus: list[dict[str, Any]] = []
    found: list[_SeedResult] = []
    for number in range(seeds):
        one = _train_and_rank(data, with_training(settings, seed=seed + number), rates, run, extra)
        assert all(_same(one.positions, other.positions) for other in found)
        found.append(one)
        tables.append(summarise(one.ranked, one.positions, draws, seed))
        versus.append(_served_minus(one, draws, seed))
        run.say(f"seed {seed + number}: serves {one.served_by}")
        run.say(text_table(tables[-1]))
    last, first = found[-1], networks[0]
    return NetworkComparison(
        results=rounded(_averaged(tables)),
        served_minus=rounded(_averaged(versus)),
        breakdown=rounded(breakdown(last.ranked["served"], last.positions)),
        train_seconds=round(_mean([one.seconds[first] for one in found]), 2),
        network_seconds={
            name: round(_mean([one.curves[name].seconds for one in found]), 2) for name in networks
        },
        events_per_second=round(_mean([one.curves[first].events_per_second for one in found])),
        learning_rates={
            name: settings.training.learning_rate * share for name, share in rates.items()
        },
        positions=int((last.positions.targets >= FIRST_ITEM).sum()),
        positions_all=len(last.positions),
        target="next_basket" if last.positions.baskets is not None else "next_item",
        seeds=seeds,
        served_by=[one.served_by for one in found],
    )


def _train_and_rank(
    data: ComparisonData,
    settings: Settings,
    rates: Mapping[str, float],
    run: Run,
    extra: ExtraScorers,
) -> _SeedResult:
    """Train each network at its share of the learning rate, and rank the window by all systems."""
    ranked: dict[str, RankedPositions] = {}
    curves, seconds = {}, {}
    served_by = ""
    earlier: Positions | None = None
    for name, rate in rates.items():
        started = time.perf_counter()
        fitted = _fit(data, settings, name, rate, run)
        seconds[name], curves[name] = time.perf_counter() - started, fitted.curve
        positions, bundle = _positions(data, fitted), fitted.bundle
        if len(positions) == 0:
            raise NotEnoughDataError("no position is left to rank")
        assert earlier is None or _same(positions, earlier)
        earlier, rows = positions, len(bundle.vocabulary)
        ranked[name] = rank_positions(positions, scorer_of(bundle, name), rows)
        ranked[f"{name}_{BLEND}"] = rank_positions(positions, scorer_of(bundle, BLEND), rows)
        if served_by == "":
            served_by = bundle.ranking
            for ranking, scorer in {**baselines(bundle), **extra(bundle.vocabulary)}.items():
                ranked[ranking] = rank_positions(positions, scorer, rows)
            served = served_by if served_by != BLEND else f"{name}_{BLEND}"
    ranked = {"served": ranked[served], **ranked}
    return _SeedResult(positions, ranked, served_by, curves, seconds)


def _same(one: Positions, other: Positions) -> bool:
    """Whether both are the same events."""
    return np.array_equal(one.targets, other.targets) and np.array_equal(
        one.histories.ends, other.histories.ends
    )


def _served_minus(found: _SeedResult, draws: int, seed: int) -> dict[str, Any]:
    """What is served minus each other ranking, on the targets training has seen."""
    known = found.positions.targets >= FIRST_ITEM
    owners = found.positions.owners[known]
    served = found.ranked["served"].ranks[known]
    return {
        name: difference(served, other.ranks[known], owners, draws, seed)
        for name, other in found.ranked.items()
        if name != "served"
    }


def baselines(bundle: Bundle) -> dict[str, Scorer]:
    """Every ranker of the bundle, and beside one that was tuned the published one it is based on."""
    found = {name: scorer_of(bundle, name) for name in bundle.rankers}
    for ranker in bundle.rankers.values():
        name, untuned = ranker.untuned_name, ranker.untuned()
        if name is not None and any(
            getattr(ranker, key) != getattr(untuned, key) for key in ranker.search_space
        ):
            other = replace(bundle, rankers={**bundle.rankers, name: untuned})
            found[name] = scorer_of(other, name)
    return found


def with_training(settings: Settings, **changes: Any) -> Settings:
    """`settings` with other values in [training]."""
    training = settings.training.model_copy(update=changes)
    return settings.model_copy(update={"training": training})


def _fit(
    data: ComparisonData, settings: Settings, network: str, rate_share: float, run: Run
) -> FittedModel:
    rate = settings.training.learning_rate * rate_share
    chosen = with_training(settings, learning_rate=rate)
    model = settings.model.model_copy(update={"network": network})
    chosen = chosen.model_copy(update={"model": model})
    return fit_model(data.log, chosen, "bench", data.cut_us, run)


def _best_rate(data: ComparisonData, settings: Settings, network: str, run: Run) -> float:
    """The share of the learning rate with which validation went best; without the refit."""
    quick = with_training(settings, refit=False, final_epochs=0)

    def best_validation(share: float) -> float:
        curve = _fit(data, quick, network, share, run).curve
        return max((record.validation or 0.0) for record in curve.epochs)

    return max(RATES, key=best_validation)


def _averaged(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each figure over tables of one shape."""
    return {
        key: _averaged([table[key] for table in tables])
        if isinstance(value, Mapping)
        else _mean([table[key] for table in tables])
        for key, value in tables[0].items()
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _positions(data: ComparisonData, fitted: FittedModel) -> Positions:
    """The positions of the window, in the indices of the fitted model."""
    bundle = fitted.bundle
    if data.test is None:
        return window_positions(data.log, bundle, data.cut_us)
    test = data.test.encoded(bundle.vocabulary, bundle.event_types)
    test = test.keep(test.items >= FIRST_ITEM)
    return (baskets_from if data.log.baskets else positions_from)(test, 0)
