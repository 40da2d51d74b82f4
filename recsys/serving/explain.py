"""Explain an answer: which past events moved an item up, by leaving each event out in turn.

Legend: T events of one history, N items asked about.

The contribution of an event to an item is the item's score with the whole history, minus its score
without that event, both by the ranking that is served. The T + 1 histories are ranked one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from recsys.events.array_types import Float32Array, Int64Array
from recsys.events.sequences import Histories
from recsys.models.bundle import Bundle
from recsys.models.ranking import scores_at, sources_of
from recsys.serving.answers import Candidate, Reason
from recsys.serving.context import RankingContext
from recsys.serving.history import past_read
from recsys.serving.recommender import Recommender

REASONS = 3  # past events named for an item


def explain(
    recommender: Recommender, context: RankingContext, chosen: Iterable[Candidate]
) -> dict[str, tuple[Reason, ...]] | None:
    """The past events that raised each item most; none for what came from popularity.

    None where the request asks for no explanation.
    """
    if not context.request.explain:
        return None
    bundle, history = context.bundle, context.history
    if bundle is None or history is None or len(history[0]) == 0:
        return {}
    ranked_by = sources_of(bundle)
    asked = [one for one in chosen if one.source in ranked_by and one.item_id in bundle.vocabulary]
    if not asked:
        return {}
    index = bundle.vocabulary.encode(one.item_id for one in asked).astype(np.int64)
    recent = recommender.ranking.recent(bundle, context.now_us)
    added = contributions(bundle, history, index, recent)  # (N, T)
    read = past_read(bundle, context.past)[-added.shape[1] :]
    reasons = {}
    for row, one in enumerate(asked):
        best = np.argsort(-added[row], kind="stable")[:REASONS]
        reasons[one.item_id] = tuple(
            Reason(
                read[at].item_id,
                read[at].event_id,
                read[at].timestamp_us,
                round(min(1.0, float(added[row, at]) / max(one.score, 1e-12)), 4),
            )
            for at in best
            if added[row, at] > 0
        )
    return reasons


def main_reasons(reasons: Iterable[Reason | Mapping[str, Any]] | None) -> list[tuple[str, float]]:
    """(item id, share) of the items behind a recommended one, the largest share first, for people.

    Each event's share in `reasons` is what the score loses without that event alone, so that those of
    events that say the same add up to more than 1. Here they are shared out: events of one item are
    added up, all are scaled to 1 where they exceed it, and rounded down to whole per cents, so that
    what is shown comes to 100% at most. What is below 1% is left out.

    `reasons`: as an answer has them, or as they were stored.

    >>> main_reasons([{"item_id": "a", "share": 0.99}, {"item_id": "b", "share": 0.49},
    ...               {"item_id": "a", "share": 0.1}, {"item_id": "c", "share": 0.001}])
    [('a', 0.68), ('b', 0.3)]
    """
    shares: dict[str, float] = {}
    for one in reasons or ():
        item_id, share = (
            (one.item_id, one.share) if isinstance(one, Reason) else (one["item_id"], one["share"])
        )
        shares[item_id] = shares.get(item_id, 0.0) + share
    whole = max(1.0, sum(shares.values()))
    found = [(item_id, int(100 * share / whole + 1e-9) / 100) for item_id, share in shares.items()]
    return sorted((pair for pair in found if pair[1] > 0), key=lambda pair: -pair[1])


def contributions(
    bundle: Bundle,
    history: Histories,
    items: Int64Array,
    recent: Float32Array | None = None,
) -> Float32Array:
    """(N, T): what each of the newest `max_length` events adds to each item's score, oldest first.

    history: one history (B = 1); items: (N,) indices. An item that may not come next without an
    event (or with it) gets 0 for that event.
    """
    own = history.last(bundle.max_length)
    whole = scores_at(bundle, own, items, recent)  # (N,)
    shorter = leave_one_out(own)
    found = np.zeros((len(items), len(shorter)), np.float32)
    for number in range(len(shorter)):
        without = scores_at(bundle, shorter.batch(number, number + 1), items, recent)
        with np.errstate(invalid="ignore"):
            change = whole - without
        found[:, number] = np.where(np.isfinite(change), change, np.float32(0))
    return found


def leave_one_out(history: Histories) -> Histories:
    """T histories of T - 1 events: number t lacks event t. Where that event began a session, the
    next one does.
    """
    first, last = int(history.starts[0]), int(history.ends[0])
    count = last - first
    index = np.arange(first, last)[None, :].repeat(count, axis=0)
    kept = index[~np.eye(count, dtype=np.bool_)]  # (T * (T - 1),)
    starts = history.session_starts[kept].reshape(count, count - 1)
    for out in range(count - 1):
        starts[out, out] |= history.session_starts[first + out]
    offsets = np.arange(count, dtype=np.int64) * (count - 1)
    return replace(
        history,
        items=history.items[kept],
        event_types=history.event_types[kept],
        timestamps_us=history.timestamps_us[kept],
        session_starts=starts.ravel(),
        starts=offsets,
        ends=offsets + count - 1,
    )
