"""Measure whether the order of events predicts the next one: rankers of sequences against popularity.

The newest part of a sample is ranked by rankers fitted to what came before it: each next item, among
all items of the sample, ties against the ranking, items not seen before left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.events.frame import EventFrame
from recsys.events.repeat_policy import learn_repeat_policy
from recsys.events.sequences import Sequences
from recsys.events.time_split import (
    baskets_from,
    cut_for_share,
    events_before,
    positions_from,
    tied_share,
)
from recsys.events.vocabulary import FIRST_ITEM, Vocabulary
from recsys.models.rankers import LABELS, RANKERS
from recsys.training.report import RankedPositions, difference, ranker_ranks, summarise

WINDOW_SHARE = 0.1
POSITIONS = 3_000
ENOUGH = 200  # positions on which anything is said
TIED = 0.5
MARGIN = 0.1  # of popularity's figure, by which the lead's lower 95% bound must be ahead
DRAWS = 400


def analyse_baselines(frame: EventFrame, sequences: Sequences, seed: int) -> dict[str, Any]:
    """Every ranker's metrics with intervals, and a verdict in plain words; JSON-ready."""
    nothing: dict[str, Any] = {"positions": 0, "results": {}, "carries_signal": None}
    if sequences.event_count == 0:
        return {**nothing, "verdict": "there are no events"}
    cut_us = cut_for_share(sequences, WINDOW_SHARE)
    before = events_before(sequences, cut_us)
    vocabulary = Vocabulary([frame.item_ids[code] for code in np.unique(before.items)])
    rows, codes = len(vocabulary), vocabulary.encode(frame.item_ids)
    encoded, train = sequences.recode(codes), before.recode(codes)
    cut = baskets_from if tied_share(sequences) > TIED else positions_from
    every = cut(encoded, cut_us)
    unseen = float((every.targets < FIRST_ITEM).mean()) if len(every) else 0.0
    positions = every.known.sample(POSITIONS, np.random.default_rng(seed))
    facts = {
        "cut_us": cut_us,
        "training_events": before.event_count,
        "catalogue": vocabulary.item_count,
        "positions": len(positions),
        "never_seen_share": round(unseen, 4),
        "next_basket": cut is baskets_from,
    }
    if len(positions) < ENOUGH or before.event_count < ENOUGH:
        verdict = f"too little to say: {len(positions)} next items to be found, {ENOUGH} are needed"
        return {**nothing, **facts, "verdict": verdict}
    policy = learn_repeat_policy(train)
    ranked = {
        name: RankedPositions(ranker_ranks(kind.fit(train, rows), positions, policy, rows), 0.0)
        for name, kind in RANKERS.items()
    }
    table = summarise(ranked, positions, DRAWS, seed)
    popular = max(_names(False), key=lambda name: table[name]["recall@20"])
    ordered = max(_names(True), key=lambda name: table[name]["recall@20"])
    leads = difference(ranked[ordered].ranks, ranked[popular].ranks, positions.owners, DRAWS, seed)
    best, base = table[ordered]["recall@20"], table[popular]["recall@20"]
    # The best of several is ahead by chance now and then, and of few items 20 are many.
    carries = any(
        leads[metric]["low"] > MARGIN * table[popular][metric] for metric in ("recall@20", "mrr@20")
    )
    lead = leads["recall@20"]
    return {
        **facts,
        "results": {
            name: {
                key: round(row[key], 4) for key in row if key.startswith(("recall@20", "mrr@20"))
            }
            for name, row in table.items()
        },
        "best": ordered,
        "popularity": popular,
        "times": round(best / base, 2) if base > 0 else None,
        "lead": {key: round(value, 4) for key, value in lead.items()},
        "carries_signal": carries,
        "verdict": _verdict(LABELS[ordered], LABELS[popular], best, base, carries),
    }


def _names(uses_order: bool) -> list[str]:
    return [name for name, kind in RANKERS.items() if kind.uses_order is uses_order]


def _verdict(ordered: str, popular: str, best: float, base: float, carries: bool) -> str:
    """The figures in plain words.

    >>> _verdict("session kNN", "popular", 0.61, 0.15, True)[:70]
    'sequences carry signal: session kNN finds the next item 4.1 times as o'
    """
    figures = f"({best:.3f} against {base:.3f} of the next items among the first 20)"
    if not carries and best > base:
        return f"little signal in the order: {ordered} is hardly ahead of {popular} {figures}"
    if not carries:
        return f"no signal found in the order: {ordered} is not ahead of {popular} {figures}"
    much = f"{best / base:.1f} times as often as {popular}" if base > 0 else f"and {popular} never"
    return f"sequences carry signal: {ordered} finds the next item {much} {figures}"
