"""Every ranker that needs no training, by name: fitted to the same sequences, and their votes as scores.

Legend: B histories, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from recsys.events.array_types import Float32Array
from recsys.events.sequences import Histories, Sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.popular import Popular, PopularRecent
from recsys.models.ranker import Ranker
from recsys.models.sequential_rules import SequentialRules
from recsys.models.session_knn import SessionKnn
from recsys.models.transitions import Transitions

RANKERS: dict[str, type[Ranker]] = {
    kind.name: kind for kind in (Popular, PopularRecent, Transitions, SequentialRules, SessionKnn)
}


def fit_rankers(
    sequences: Sequences,
    rows: int,
    limit: int,
    settings: Mapping[str, Ranker] | None = None,
) -> dict[str, Ranker]:
    """Every ranker, fitted to sequences of vocabulary indices, with the settings of `settings`.

    What counts steps and sessions is fitted to the newest `limit` events: it needs some 250 bytes
    of memory for each.
    """
    newest = sequences.newest(limit)
    fitted: dict[str, Ranker] = {
        name: kind.fit(sequences if issubclass(kind, Popular) else newest, rows)
        for name, kind in RANKERS.items()
    }
    knn = fitted["session_knn"]
    assert isinstance(knn, SessionKnn)
    fitted["session_knn"] = with_choices(knn, settings or {})
    return fitted


def with_choices(knn: SessionKnn, settings: Mapping[str, Ranker]) -> SessionKnn:
    """`knn` with what was chosen on validation for the one among `settings`, if there is one."""
    chosen = settings.get("session_knn")
    if not isinstance(chosen, SessionKnn):
        return knn
    return replace(knn, order_decay=chosen.order_decay, copy_share=chosen.copy_share)


def dense_scores(ranker: Ranker, histories: Histories, rows: int) -> Float32Array:
    """Scores (B, V): 0 where the ranker has no vote, -inf for padding and unknown."""
    scores = np.zeros((len(histories), rows), np.float32)
    for number in range(len(histories)):
        items, votes = ranker.votes(histories[number])
        scores[number, items] = votes
    scores[:, :FIRST_ITEM] = -np.inf
    return scores
