"""Choose the blend for answers with a live log, on validation replayed in the order of time.

Legend: P positions, C candidates of a position, S best scores kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.events.array_types import AnyArray, BoolArray, Float32Array, Int64Array
from recsys.events.large_arrays import count_codes
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN
from recsys.models.blend import SHARPEST, TRENDING_US, Blend
from recsys.models.bundle import Bundle, compacted
from recsys.models.catalogue_scan import HistoryState, Mask, distinct
from recsys.models.ranker import vote_shares
from recsys.models.rankers import BLENDABLE
from recsys.models.ranking import candidates, network_state, votes_of
from recsys.training.blend_search import BEST, Candidates, RatedBlend, search
from recsys.training.dataset import Dataset
from recsys.training.replay import K, Moment, Replay
from recsys.training.report import ENOUGH_POSITIONS

NAMES = (*BLENDABLE, *TRENDING_US)
LEAST_GAIN = 0.005  # of the objective: less than that is chance on so few positions


def choose_live_blend(
    bundle: Bundle, dataset: Dataset, start: Blend, delay_us: int
) -> RatedBlend | None:
    """The weights that rank validation best as it would have been answered, searched from `start` on.

    The bundle's network and rankers have seen the fit part alone; what came after it is counted on.
    None where validation is too small to choose by.
    """
    positions = dataset.replayed_positions()
    if len(positions) < ENOUGH_POSITIONS:
        return None
    seen = count_codes(dataset.fit.items, len(bundle.vocabulary)) > 0
    served = compacted(bundle, dataset.settings.serving.item_matrix)
    shown, mask = restricted(served, seen)
    replay = Replay(dataset.history, shown, dataset.validation_cut_us, delay_us)
    rows = (_Row.of(moment, mask) for moment in replay.moments(positions))
    found = [row for row in rows if row is not None]
    if len(found) < ENOUGH_POSITIONS:
        return None
    return search(_stacked(found), start, NAMES, LEAST_GAIN)


class _Row:
    """The candidates of one position: arrays as in `Candidates`, of one position each."""

    def __init__(self, network: str, parts: dict[str, AnyArray], votes: dict[str, Float32Array]):
        self.network, self.parts, self.votes = network, parts, votes

    @classmethod
    def of(cls, moment: Moment, mask: Mask) -> _Row | None:
        """None where nobody can know the target yet: no weight ranks it."""
        wanted = moment.wanted[moment.wanted != UNKNOWN]
        bundle, history = moment.bundle, moment.history
        if len(wanted) == 0 or bundle.network_name is None:
            return None
        state = HistoryState(network_state(bundle, history), votes_of(bundle, history[0], NAMES))
        plain = Blend({bundle.network_name: 1.0})
        rows, made = candidates(bundle, plain, history, K, moment.recent, mask, state)
        assert made.recent is not None
        scores, recent = made.scores[0].copy(), made.recent
        mask.apply(scores, rows)
        strongest = np.argsort(-scores, kind="stable")[:SHARPEST]
        shares = np.zeros(len(rows), np.float32)
        np.add.at(shares, made.pointed[0], made.shares[0])
        votes = {}
        chosen = [strongest[:BEST], made.pointed[0]]
        for name in NAMES:
            dense = np.zeros(len(rows), np.float32)
            given = made.votes[name][0]
            dense[given[0]] = vote_shares(given, scores)
            votes[name] = dense
            chosen.append(given[0][np.argsort(-given[1], kind="stable")[:BEST]])
        at = distinct(np.concatenate(chosen))
        parts = {
            "scores": scores[at],
            "best": scores[strongest],
            "best_recent": recent[strongest],
            "copies": shares[at],
            "gate": made.gate,
            "recent": recent[at],
            "wanted": np.isin(rows[at], wanted) & (rows[at] >= FIRST_ITEM),
        }
        return cls(made.network, parts, {name: votes[name][at] for name in NAMES})


def _stacked(found: list[_Row]) -> Candidates:
    """Candidates of positions one below the other; empty places score -inf."""

    def joined(rows: list[AnyArray], empty: float) -> AnyArray:
        table = np.full((len(rows), max(len(row) for row in rows)), empty, rows[0].dtype)
        for number, row in enumerate(rows):
            table[number, : len(row)] = row
        return table

    def part(name: str, empty: float = 0.0) -> AnyArray:
        return joined([row.parts[name] for row in found], empty)

    return Candidates(
        network=found[0].network,
        scores=part("scores", -np.inf),
        best=part("best", -np.inf),
        best_recent=part("best_recent"),
        copies=part("copies"),
        gate=part("gate")[:, 0],
        votes={name: joined([row.votes[name] for row in found], 0.0) for name in NAMES},
        recent=part("recent"),
        wanted=part("wanted").astype(np.bool_),
    )


def restricted(bundle: Bundle, known: BoolArray) -> tuple[Bundle, Mask]:
    """`bundle` as if rows that are not `known` (V,) were no items of it, and the mask that keeps
    their scores out: items first seen in validation have a row, and no training.
    """
    hidden: Int64Array = np.flatnonzero(~known).astype(np.int64)
    vocabulary = bundle.vocabulary.without(hidden)
    return replace(bundle, vocabulary=vocabulary), Mask(excluded=hidden)
