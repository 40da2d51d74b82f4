"""Votes -> score matrices.

Legend: B histories, V vocabulary rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.rankers.base import Ranker


def dense_scores(ranker: Ranker, histories: Histories, rows: int) -> NDArray[np.float32]:
    """Scores (B, V): 0 where the ranker has no vote, -inf for padding and unknown."""
    scores = np.zeros((len(histories), rows), np.float32)
    for number in range(len(histories)):
        items, votes = ranker.votes(histories[number])
        scores[number, items] = votes
    scores[:, :FIRST_ITEM] = -np.inf
    return scores
