"""Business value: candidates ordered by what they are worth, not by their chance alone.

Legend: C candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys.errors import InputError
from recsys.events.array_types import Float64Array, Int64Array
from recsys.serving.answers import Candidate, Request
from recsys.serving.filters import bindings_of
from recsys.serving.item_columns import CatalogueColumns
from recsys.serving.item_snapshot import ItemSnapshot
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.expression import Expression
from recsys.storage.engine.database import Connection
from recsys.storage.entities.history_rows import History


@dataclass(frozen=True)
class Scoring:
    """The number that candidates are ordered by, and what its names stand for."""

    expression: Expression
    bindings: Bindings
    catalogue: CatalogueColumns

    def values(self, candidates: Sequence[Candidate], chances: Float64Array) -> Float64Array:
        """What each candidate is worth (C,), by its chance (C,); NaN where what the expression names is
        missing.
        """
        places = self.catalogue.ids.rows
        rows = np.array([places.get(one.item_id, -1) for one in candidates], np.int64)
        known = np.flatnonzero((rows >= 0) & (rows < self.catalogue.count))
        columns = self.catalogue.columns.take(self.expression.item_names, rows[known])
        values = np.full(len(candidates), np.nan)
        bindings = replace(self.bindings, chance=chances[known])
        values[known] = self.expression.values(columns, bindings)
        return values


def scoring_of(
    connection: Connection,
    request: Request,
    history: History,
    snapshot: ItemSnapshot,
    now_us: int,
) -> Scoring | None:
    """How the request's scenario orders candidates; None: by their chance alone, also where the score
    names what no item or user has any more.
    """
    expression = request.scenario_rules.score
    if expression is None:
        return None
    bindings = bindings_of(connection, [expression], request.user_id, history, snapshot, now_us)
    try:
        return Scoring(expression, bindings, snapshot.columns(connection, expression, bindings))
    except InputError:
        return None


def chances_of(candidates: Sequence[Candidate], ranked_by: Collection[str]) -> Float64Array:
    """The chance (C,) that each candidate comes next.

    `candidates`: best first. Of what the ranking gave (`ranked_by`: its sources) it is the score, a share of what
    comes next, and never more than that of the one before, which holds down what fills up a ranking by other
    numbers. Counts, and what else is no chance, become shares of their source's sum, so that visitors without a
    history are served by value too.

    >>> found = [Candidate("a", 0.5, "lstm"), Candidate("b", 30, "popular"), Candidate("c", 10, "popular")]
    >>> chances_of(found, {"lstm"}).tolist()
    [0.5, 0.75, 0.25]
    """
    chances = np.array([max(one.score, 0.0) for one in candidates], np.float64)
    counted = np.array([one.source not in ranked_by for one in candidates], np.bool_)
    chances[~counted] = np.minimum.accumulate(chances[~counted])
    sources = np.array([one.source for one in candidates], object)
    for source in set(sources[counted].tolist()):
        own = sources == source
        chances[own] /= max(float(chances[own].sum()), np.finfo(np.float64).tiny)
    return chances


def by_value(
    candidates: Sequence[Candidate], values: Float64Array, own: Collection[str]
) -> list[Candidate]:
    """The candidates in the order of `values` (C,), which become their scores.

    What is of one of the `own` sources stays before what is not, and of both what has a value before what has
    none (NaN), which is worth 0. Equal ones keep their order.
    """
    worth = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    missing = ~np.isfinite(values)
    filling = np.array([one.source not in own for one in candidates], np.bool_)
    order: Int64Array = np.lexsort((-worth, missing, filling))
    return [candidates[at]._replace(score=float(worth[at])) for at in order]
