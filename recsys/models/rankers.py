"""The list of rankers, fitted to the same sequences, and their votes as scores.

Legend: B histories, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recsys.events.array_types import Float32Array
from recsys.events.sequences import Histories, Sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.popular import Popular, PopularRecent
from recsys.models.ranker import Ranker
from recsys.models.sequential_rules import SequentialRules
from recsys.models.session_knn import SessionKnn
from recsys.models.transitions import Transitions

# From the simplest to the strongest; a ranker's class says the rest of it.
RANKERS: dict[str, type[Ranker]] = {
    kind.name: kind for kind in (Popular, PopularRecent, Transitions, SequentialRules, SessionKnn)
}
# In the order in which a blend's weights are searched: the strongest ranker first.
BLENDABLE = tuple(name for name, kind in reversed(RANKERS.items()) if kind.blendable)
LABELS = {name: kind.label for name, kind in RANKERS.items()}


def fit_rankers(
    sequences: Sequences,
    rows: int,
    limit: int,
    tuned: Mapping[str, Ranker] | None = None,
) -> dict[str, Ranker]:
    """Every ranker, fitted to sequences of vocabulary indices, with what was chosen for `tuned`.

    A ranker that counts steps or sessions is fitted to the newest `limit` events: it needs some 250
    bytes of memory for each.
    """
    newest, chosen = sequences.newest(limit), tuned or {}
    return {
        name: kind.fit(sequences if kind.all_events else newest, rows).tuned_like(chosen.get(name))
        for name, kind in RANKERS.items()
    }


def dense_scores(ranker: Ranker, histories: Histories, rows: int) -> Float32Array:
    """Scores (B, V): 0 where the ranker has no vote, -inf for padding and unknown."""
    scores = np.zeros((len(histories), rows), np.float32)
    for number in range(len(histories)):
        items, votes = ranker.votes(histories[number])
        scores[number, items] = votes
    scores[:, :FIRST_ITEM] = -np.inf
    return scores
