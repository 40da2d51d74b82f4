"""Business value: candidates ordered by what they are worth, not by their chance alone.

Legend: C candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from recsys.events.array_types import Float64Array, Int64Array
from recsys.serving.answers import Candidate


def chances_of(candidates: Sequence[Candidate], ranked_by: Collection[str]) -> Float64Array:
    """The chance (C,) that each candidate comes next.

    `candidates`: best first. Of what the ranking gave (`ranked_by`: its sources) it is the score, a share of what
    comes next, and never more than that of the one before, which holds down what fills up a ranking by other
    numbers. Counts of what is popular become shares of their sum, so that visitors without a history are
    served by value too.

    >>> found = [Candidate("a", 0.5, "lstm"), Candidate("b", 30, "popular"), Candidate("c", 10, "popular")]
    >>> chances_of(found, {"lstm"}).tolist()
    [0.5, 0.75, 0.25]
    """
    chances = np.array([max(one.score, 0.0) for one in candidates], np.float64)
    counted = np.array([one.source not in ranked_by for one in candidates], np.bool_)
    chances[~counted] = np.minimum.accumulate(chances[~counted])
    total = chances[counted].sum()
    if total > 0:
        chances[counted] /= total
    return chances


def by_value(
    candidates: Sequence[Candidate], values: Float64Array, ranked_by: Collection[str]
) -> list[Candidate]:
    """The candidates in the order of `values` (C,), which become their scores.

    What the ranking gave stays before what it did not. A candidate without a value (NaN) is worth 0; equal ones
    keep their order.
    """
    worth = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    counted = np.array([one.source not in ranked_by for one in candidates], np.bool_)
    order: Int64Array = np.lexsort((-worth, counted))
    return [candidates[at]._replace(score=float(worth[at])) for at in order]
