"""Every system on one time window: identical positions for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.config import Settings
from recsys.events.array_types import Float32Array
from recsys.events.sequences import Histories
from recsys.events.time_split import Positions
from recsys.models.bundle import Bundle, compacted
from recsys.models.lstm.item_matrix import KINDS, ItemMatrix
from recsys.models.ranking import LSTM, rankings, scores
from recsys.storage.entities.version_rows import VersionRow
from recsys.tracing import traced
from recsys.training.gate import Verdict, verdict
from recsys.training.metrics import recall, reciprocal_rank
from recsys.training.report import (
    Outcome,
    Scorer,
    breakdown,
    plain,
    rank_positions,
    summarise,
    text_table,
)
from recsys.training.training_log import Log

MATRIX_POSITIONS = 1_000


@dataclass(frozen=True)
class Trial:
    """The outcome of one comparison."""

    positions: Positions  # in the candidate's indices
    outcomes: dict[str, Outcome]  # 'served', each ranking, 'champion' where there is one
    metrics: dict[str, dict[str, float]]
    breakdown: dict[str, Any]  # of 'served'
    cut_us: int

    def table(self) -> str:
        return text_table(self.metrics)


def window_positions(log: Log, bundle: Bundle, cut_us: int, end_us: int | None = None) -> Positions:
    """Every target at or after `cut_us` in the bundle's own indices, in the log's order.

    Two bundles over one log give the same positions, each with its own numbers for the items.
    """
    sequences = log.encoded(bundle.vocabulary, bundle.event_types)
    return log.positions(sequences, cut_us, end_us)


def scorer_of(bundle: Bundle, ranking: str | None = None) -> Scorer:
    """`recsys.models.ranking.scores` of one ranking, as evaluation wants it."""

    def scorer(histories: Histories) -> Float32Array:
        return scores(bundle, histories, ranking)

    return scorer


def matrix_costs(log: Log, bundle: Bundle, cut_us: int) -> dict[str, dict[str, float]]:
    """recall@20 and MRR@20 of the network with its item table in each form, and the form's size.

    On a sample of the window; serving a form costs the difference to float32.
    """
    if bundle.network is None:
        return {}
    positions = window_positions(log, bundle, cut_us).known
    positions = positions.sample(MATRIX_POSITIONS, np.random.default_rng(0))
    found = {}
    for kind in KINDS:
        held = compacted(bundle, kind)
        outcome = rank_positions(positions, scorer_of(held, LSTM), len(bundle.vocabulary))
        found[kind] = {
            "recall@20": float(recall(outcome.ranks, 20).mean()) if len(positions) else 0.0,
            "mrr@20": float(reciprocal_rank(outcome.ranks, 20).mean()) if len(positions) else 0.0,
            "mib": round(ItemMatrix.of(bundle.network, kind).size_bytes / 2**20, 3),
        }
    return found


@traced("trial")
def run_trial(
    log: Log,
    candidate: Bundle,
    champion: Bundle | None,
    cut_us: int,
    settings: Settings,
    extra: dict[str, Scorer] | None = None,
) -> Trial:
    """Rank every target at or after `cut_us` by the candidate's rankings, the champion's served one
    and `extra`; whole owners are sampled beyond `evaluation.max_positions`.

    The champion ranks the same events in its own indices; a target unknown to a system is its miss.
    """
    everything = window_positions(log, candidate, cut_us)
    rng = np.random.default_rng(settings.training.seed)
    positions = everything.sample(settings.evaluation.max_positions, rng)
    rows = len(candidate.vocabulary)
    outcomes = {
        name: rank_positions(positions, scorer_of(candidate, name), rows)
        for name in rankings(candidate)
    }
    served = {"served": outcomes[candidate.ranking]}
    for name, scorer in (extra or {}).items():
        outcomes[name] = rank_positions(positions, scorer, rows)
    if champion is not None:
        own = window_positions(log, champion, cut_us)
        chosen = own.where(np.isin(everything.histories.ends, positions.histories.ends))
        assert np.array_equal(chosen.histories.ends, positions.histories.ends)
        served["champion"] = rank_positions(chosen, scorer_of(champion), len(champion.vocabulary))
    outcomes = {**served, **outcomes}
    metrics = summarise(
        outcomes, positions, settings.evaluation.bootstrap_draws, settings.training.seed
    )
    return Trial(
        positions=positions,
        outcomes=outcomes,
        metrics=plain(metrics),
        breakdown=plain(breakdown(outcomes["served"], positions)),
        cut_us=cut_us,
    )


def judge(trial: Trial, candidate: Bundle, champion: Bundle | None, settings: Settings) -> Verdict:
    """What the gate says of the candidate beside the champion and every ranker on one window."""
    return verdict(
        trial.outcomes["served"].ranks,
        trial.outcomes["champion"].ranks if champion is not None else None,
        {name: trial.outcomes[name].ranks for name in candidate.rankers},
        trial.positions.owners,
        ranking=candidate.ranking,
        margin=settings.promotion.margin,
        min_positions=settings.promotion.min_positions,
        draws=settings.evaluation.bootstrap_draws,
        seed=settings.training.seed,
    )


@dataclass(frozen=True)
class Evaluated:
    """A version and every ranker on one window that the version has not learned."""

    version: str
    metrics: dict[str, dict[str, float]]
    positions: int
    window_from_us: int
    note: str


def evaluate_version(log: Log, bundle: Bundle, row: VersionRow, settings: Settings) -> Evaluated:
    """A registered version on the events that are newer than its data; where there are none, the figures
    from before it learned its test window.
    """
    trial = run_trial(log, bundle, None, row.data_end_us + 1, settings)
    if len(trial.positions):
        note = "on the events that are newer than the version's data"
        metrics, cut_us, positions = trial.metrics, trial.cut_us, len(trial.positions)
    else:
        note = "on its test window, ranked before the version learned that window"
        metrics = row.facts["metrics"]
        cut_us, positions = row.facts["window"]["from_us"], row.facts["window"]["positions"]
    return Evaluated(row.version, metrics, positions, cut_us, note)
