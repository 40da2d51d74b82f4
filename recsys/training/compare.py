"""Networks side by side: trained in the same loop, ranked on identical positions, each unblended and
with the same blend, beside every ranker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.config import Settings
from recsys.errors import InputError, NotEnoughDataError
from recsys.events.time_split import Positions, baskets_from, positions_from
from recsys.events.vocabulary import FIRST_ITEM, Vocabulary
from recsys.models.bundle import Bundle
from recsys.models.lstm.training_loop import Progress
from recsys.models.ranking import BLEND, LSTM
from recsys.models.session_knn import SessionKnn
from recsys.training.evaluate import scorer_of, window_positions
from recsys.training.fit import Learned, learn
from recsys.training.report import (
    Outcome,
    Scorer,
    breakdown,
    difference,
    plain,
    rank_positions,
    summarise,
    text_table,
)
from recsys.training.training_log import Log

Report = Callable[[Progress], None]
RATES = (1.0, 0.3)  # shares of the learning rate that every network is tried with
NETWORKS = ("lstm", "gru", "sasrec")


@dataclass(frozen=True)
class Inputs:
    """Where positions come from: the log that trains, and what is ranked after it."""

    log: Log
    test: Log | None  # its own file; None where the log is cut
    cut_us: int


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
    inputs: Inputs,
    seeds: int,
    networks: Sequence[str],
    on_progress: Report,
    say: Callable[[str], None],
    extra: Callable[[Vocabulary], Mapping[str, Scorer]] = lambda vocabulary: {},
) -> dict[str, Any]:
    """Every ranking on identical positions, figures averaged over `seeds` trainings.

    `extra` gives scorers that are shown beside the others, such as a simulation's oracle.

    `served` is what the first of `networks` would serve. Each network is trained at every rate of
    RATES with the first seed and goes on with the one that validation likes best: equal budgets.
    """
    tables: list[dict[str, dict[str, float]]] = []
    versus: list[dict[str, Any]] = []
    spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in networks}
    rates = dict.fromkeys(networks, 1.0)
    serves: list[str] = []
    positions: Positions | None = None
    for number in range(seeds):
        chosen = with_training(settings, seed=settings.training.seed + number)
        outcomes: dict[str, Outcome] = {}
        for name in networks:
            if number == 0 and len(networks) > 1:
                rates[name] = _best_rate(inputs, chosen, name, on_progress)
                say(f"{name}: learning rate {chosen.training.learning_rate * rates[name]:g}")
            started = time.perf_counter()
            learned = _learn(inputs, chosen, name, rates[name], on_progress)
            seconds = time.perf_counter() - started
            curve = learned.curve
            spent[name].append((seconds, curve.seconds, curve.events_per_second))
            found = _positions(inputs, learned)
            if len(found) == 0:
                raise NotEnoughDataError("no position is left to rank")
            if positions is not None:
                assert np.array_equal(found.targets, positions.targets)
                assert np.array_equal(found.histories.ends, positions.histories.ends)
            positions = found
            rows, bundle = len(learned.bundle.vocabulary), learned.bundle
            outcomes[name] = rank_positions(positions, scorer_of(bundle, LSTM), rows)
            outcomes[f"{name}_{BLEND}"] = rank_positions(positions, scorer_of(bundle, BLEND), rows)
            if name == networks[0]:
                serves.append(bundle.ranking if bundle.ranking != LSTM else name)
                others = {**baselines(bundle), **extra(bundle.vocabulary)}
                for ranking, scorer in others.items():
                    outcomes[ranking] = rank_positions(positions, scorer, rows)
        assert positions is not None
        first = serves[-1] if serves[-1] != BLEND else f"{networks[0]}_{BLEND}"
        outcomes = {"served": outcomes[first], **outcomes}
        draws = settings.evaluation.bootstrap_draws
        tables.append(summarise(outcomes, positions, draws, settings.training.seed))
        known = positions.targets >= FIRST_ITEM
        versus.append(
            {
                name: difference(
                    outcomes["served"].ranks[known],
                    outcome.ranks[known],
                    positions.owners[known],
                    draws,
                    settings.training.seed,
                )
                for name, outcome in outcomes.items()
                if name != "served"
            }
        )
        say(f"seed {chosen.training.seed}: serves {serves[-1]}")
        say(text_table(tables[-1]))
    assert positions is not None
    return {
        "results": plain(_averaged(tables)),
        "served_minus": plain(_averaged(versus)),
        "breakdown": plain(breakdown(outcomes["served"], positions)),
        "train_seconds": round(float(np.mean([s[0] for s in spent[networks[0]]])), 2),
        "network_seconds": {
            name: round(float(np.mean([s[1] for s in found])), 2) for name, found in spent.items()
        },
        "events_per_second": round(float(np.mean([s[2] for s in spent[networks[0]]]))),
        "learning_rates": {
            name: settings.training.learning_rate * share for name, share in rates.items()
        },
        "positions": int((positions.targets >= FIRST_ITEM).sum()),
        "positions_all": len(positions),
        "target": "next_basket" if positions.baskets is not None else "next_item",
        "seeds": seeds,
        "served_by": serves,
    }


def baselines(bundle: Bundle) -> dict[str, Scorer]:
    """Every ranker of the bundle, and the paper's VMIS-kNN beside the tuned one."""
    found = {name: scorer_of(bundle, name) for name in bundle.rankers}
    knn = bundle.rankers["session_knn"]
    if isinstance(knn, SessionKnn) and (knn.order_decay or knn.copy_share):
        paper = replace(knn, order_decay=0.0, copy_share=0.0)
        other = replace(bundle, rankers={**bundle.rankers, "vmis_knn": paper})
        found["vmis_knn"] = scorer_of(other, "vmis_knn")
    return found


def with_training(settings: Settings, **changes: Any) -> Settings:
    """`settings` with other values in [training]."""
    training = settings.training.model_copy(update=changes)
    return settings.model_copy(update={"training": training})


def _learn(
    inputs: Inputs, settings: Settings, network: str, rate_share: float, on_progress: Report
) -> Learned:
    rate = settings.training.learning_rate * rate_share
    chosen = with_training(settings, learning_rate=rate)
    model = settings.model.model_copy(update={"network": network})
    chosen = chosen.model_copy(update={"model": model})
    return learn(inputs.log, chosen, "bench", inputs.cut_us, on_progress)


def _best_rate(inputs: Inputs, settings: Settings, network: str, on_progress: Report) -> float:
    """The share of the learning rate with which validation went best; without the refit."""
    quick = with_training(settings, refit=False, final_epochs=0)

    def figure(share: float) -> float:
        curve = _learn(inputs, quick, network, share, on_progress).curve
        return max((record.validation or 0.0) for record in curve.epochs)

    return max(RATES, key=figure)


def _averaged(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each figure over tables of one shape."""
    return {
        key: _averaged([table[key] for table in tables])
        if isinstance(value, Mapping)
        else float(np.mean([table[key] for table in tables]))
        for key, value in tables[0].items()
    }


def _positions(inputs: Inputs, learned: Learned) -> Positions:
    if inputs.test is None:
        return window_positions(inputs.log, learned.bundle, inputs.cut_us)
    bundle = learned.bundle
    test = inputs.test.encoded(bundle.vocabulary, bundle.event_types)
    test = test.keep(test.items >= FIRST_ITEM)
    return (baskets_from if inputs.log.baskets else positions_from)(test, 0)
