"""Rank the targets of one time window by every system, on identical positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.config import Settings
from recsys.config.exclude_seen import resolved, seen_types
from recsys.events.array_types import Float32Array, Int64Array
from recsys.events.sequences import Histories
from recsys.events.time_split import Positions
from recsys.models.batch_ranking import scores
from recsys.models.bundle import Bundle, compacted
from recsys.models.lstm.item_matrix import KINDS, ItemMatrix
from recsys.models.ranking import rankings
from recsys.models.version_facts import Figures, VersionFacts
from recsys.storage.entities.version_rows import VersionRow
from recsys.tracing import traced
from recsys.training.event_log import EventLog
from recsys.training.replay import SERVED, Replay, delay_of, replayed_ranks
from recsys.training.report import (
    RankedPositions,
    Scorer,
    SeenTypes,
    breakdown,
    leaving_out,
    rank_positions,
    recall,
    reciprocal_rank,
    rounded,
    summarise,
    text_table,
)

MATRIX_POSITIONS = 1_000
LIVE_POSITIONS = 4_000  # of the window that are replayed
LIVE_RANKERS = ("transitions", "session_knn")  # that are counted on beside what is served


@dataclass(frozen=True)
class LiveEvaluation:
    """Positions of the window, those of unseen targets among them, as they would have been answered."""

    owners: Int64Array  # (P,) whose each position is
    seen: int  # positions with a target that training has seen
    ranks: Mapping[
        str, Int64Array
    ]  # 'served', 'champion' where there is one, each ranker counted on

    def figures(self) -> Figures:
        """recall@20 and MRR@20 over all positions, by system."""
        return {
            name: {
                "recall@20": float(recall(ranks, 20).mean()),
                "mrr@20": float(reciprocal_rank(ranks, 20).mean()),
                "positions": len(ranks),
            }
            for name, ranks in self.ranks.items()
        }


@dataclass(frozen=True)
class Evaluation:
    """The ranks and metrics of every system on one time window."""

    positions: Positions  # in the candidate's indices
    ranked: dict[str, RankedPositions]  # 'served', each ranking, 'champion' where there is one
    metrics: Figures  # by system
    breakdown: Figures  # of 'served', by group of positions
    cut_us: int  # the window's start
    live: LiveEvaluation | None = None  # None where there is no live log, or nothing to replay

    def table(self) -> str:
        return text_table(self.metrics)


def window_positions(
    log: EventLog, bundle: Bundle, cut_us: int, end_us: int | None = None
) -> Positions:
    """Every target at or after `cut_us` in the bundle's own indices, in the log's order.

    Two bundles over one log give the same positions, each with its own numbers for the items.
    """
    sequences = log.encoded(bundle.vocabulary, bundle.event_types)
    return log.positions(sequences, cut_us, end_us)


def scorer_of(bundle: Bundle, ranking: str | None = None) -> Scorer:
    """The scores of one ranking (default: the one the bundle serves) as a function of histories."""

    def scorer(histories: Histories) -> Float32Array:
        return scores(bundle, histories, ranking)

    return scorer


def seen_left_out(bundle: Bundle, settings: Settings) -> SeenTypes:
    """The event types whose items a version's answers leave out where nobody asks for others."""
    return seen_types(resolved(settings.serving.exclude_seen, bundle.facts.exclude_seen))


def matrix_costs(log: EventLog, bundle: Bundle, cut_us: int) -> Figures:
    """recall@20 and MRR@20 of the network by number format of its item table, and the table's MiB.

    On a sample of the window; serving a format costs its difference to float32.
    """
    if bundle.network is None:
        return {}
    positions = window_positions(log, bundle, cut_us).known
    positions = positions.sample(MATRIX_POSITIONS, np.random.default_rng(0))
    found = {}
    for kind in KINDS:
        held = compacted(bundle, kind)
        ranked = rank_positions(
            positions, scorer_of(held, held.network_name), len(bundle.vocabulary)
        )
        found[kind] = {
            "recall@20": float(recall(ranked.ranks, 20).mean()) if len(positions) else 0.0,
            "mrr@20": float(reciprocal_rank(ranked.ranks, 20).mean()) if len(positions) else 0.0,
            "mib": round(ItemMatrix.of(bundle.network, kind).size_bytes / 2**20, 3),
        }
    return found


@traced("evaluate")
def evaluate_on_window(
    log: EventLog,
    candidate: Bundle,
    champion: Bundle | None,
    cut_us: int,
    settings: Settings,
    extra: Mapping[str, Scorer] | None = None,
) -> Evaluation:
    """Rank every target at or after `cut_us` by the candidate's rankings, the champion's served one
    and `extra`; whole owners are sampled beyond `evaluation.max_positions`.

    The champion ranks the same events in its own indices; a target unknown to a system is its miss.
    All leave out the seen items that answers of the candidate will leave out, so that a target among
    them is everybody's miss.
    """
    seen = seen_left_out(candidate, settings)
    everything = window_positions(log, candidate, cut_us)
    rng = np.random.default_rng(settings.training.seed)
    positions = everything.sample(settings.evaluation.max_positions, rng)
    rows = len(candidate.vocabulary)
    ranked = {
        name: rank_positions(
            positions, leaving_out(scorer_of(candidate, name), seen, candidate.event_types), rows
        )
        for name in rankings(candidate)
    }
    served = {"served": ranked[candidate.ranking]}
    for name, scorer in (extra or {}).items():
        ranked[name] = rank_positions(
            positions, leaving_out(scorer, seen, candidate.event_types), rows
        )
    chosen = None  # the same positions in the champion's indices
    if champion is not None:
        own = window_positions(log, champion, cut_us)
        chosen = own.where(np.isin(everything.histories.ends, positions.histories.ends))
        assert np.array_equal(chosen.histories.ends, positions.histories.ends)
        scorer = leaving_out(scorer_of(champion), seen, champion.event_types)
        served["champion"] = rank_positions(chosen, scorer, len(champion.vocabulary))
    ranked = {**served, **ranked}
    metrics = summarise(
        ranked, positions, settings.evaluation.bootstrap_draws, settings.training.seed
    )
    live = None
    if settings.serving.live_seconds > 0 and len(positions):
        live = _evaluate_live(log, candidate, positions, cut_us, champion, chosen, settings)
    return Evaluation(
        positions=positions,
        ranked=ranked,
        metrics=rounded(metrics),
        breakdown=rounded(breakdown(ranked["served"], positions)),
        cut_us=cut_us,
        live=live,
    )


def _evaluate_live(
    log: EventLog,
    candidate: Bundle,
    positions: Positions,
    cut_us: int,
    champion: Bundle | None,
    own: Positions | None,
    settings: Settings,
) -> LiveEvaluation:
    """Replay a sample of the window's positions by candidate and champion, each with its live log.

    `own`: `positions` in the champion's indices, where there is one.
    """
    rng = np.random.default_rng(settings.training.seed)
    sample = positions.sample(LIVE_POSITIONS, rng)
    delay_us, matrix = delay_of(settings), settings.serving.item_matrix
    seen = seen_left_out(candidate, settings)
    replay = Replay(log, compacted(candidate, matrix), cut_us, delay_us, seen=seen)
    ranks = replayed_ranks(replay, sample, rankers=LIVE_RANKERS)
    if champion is not None and own is not None:
        own = own.where(np.isin(own.histories.ends, sample.histories.ends))
        since_us = champion.facts.data_end_us + 1
        replay = Replay(log, compacted(champion, matrix), since_us, delay_us, seen=seen)
        ranks["champion"] = replayed_ranks(replay, own)[SERVED]
    return LiveEvaluation(sample.owners, len(sample.known), ranks)


@dataclass(frozen=True)
class VersionEvaluation:
    """The metrics of a version and of every ranker on one window that the version has not learned."""

    version: str
    metrics: Figures
    positions: int
    window_from_us: int
    note: str


def evaluate_version(
    log: EventLog, bundle: Bundle, row: VersionRow, settings: Settings
) -> VersionEvaluation:
    """Evaluate a registered version on the events that are newer than its data.

    Where there are none, the metrics are those from before it learned its test window.
    """
    evaluation = evaluate_on_window(log, bundle, None, row.data_end_us + 1, settings)
    if len(evaluation.positions):
        note = "on the events that are newer than the version's data"
        count, cut_us = len(evaluation.positions), evaluation.cut_us
        return VersionEvaluation(row.version, evaluation.metrics, count, cut_us, note)
    facts = VersionFacts.from_json(row.facts)
    note = "on its test window, ranked before the version learned that window"
    window = facts.window
    return VersionEvaluation(row.version, facts.metrics, window.positions, window.from_us, note)
