"""What a shopper of the simulated shop views next: every probability, as a formula.

Legend: P products, C categories, S styles, K products of a cell (one category in one style),
O options, B histories, M = MEMORY.

A shopper who has just viewed an item goes on:

    session ends (SESSION_END)     and the next one starts from the last view's category and style
                                   (FROM_LAST), or with something popular
    plan (PLAN of the rest)        to a category that goes with the current one, in the style of one
                                   of the last three views, mostly of the one before the current:
                                   shoppers go to and fro between two looks; of the products that
                                   fit, by popularity
    return (RETURN)                to an earlier item of the session, the nearer the likelier
    browse (what is left)          by popularity in the whole shop

The current item is never viewed again at once: what is drawn is drawn anew while it is that one.
Popularity moves with the weeks, and shoppers go by what was popular when they last looked, so that
every probability is a function of what a log shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.data.catalogue import Catalogue

Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]

SESSION_END = 1 / 7
PLAN, RETURN = 0.82, 0.08  # of a step within a session; the rest browses
FROM_LAST = 0.6  # of later sessions' starts; the rest browses
OPTIONS = np.array([0.75, 0.17, 0.08])  # of the next categories of a category
STYLE_MEMORY = np.array([0.05, 0.8, 0.15])  # style of the current view, one before it, two before
MEMORY = 6  # newest views of the session that matter
LATE = 0.1  # share of products that arrive during the log
PHASE_DAYS = 3.5  # popularity is constant within a phase
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Odds:
    """The tables behind the formulas."""

    catalogue: Catalogue
    grammar: Int64Array  # (C, O) next categories within a session
    restart: Int64Array  # (C, O) first categories of the next session
    popularity: Float64Array  # (phases, P), each row sums to 1; 0 before a product arrives
    start_us: int  # the first phase's beginning

    @cached_property
    def cumulative(self) -> Float64Array:
        """Running sums of popularity over the shop, each row ending at 1; (phases, P)."""
        sums = np.cumsum(self.popularity, axis=1)
        return np.asarray(sums / sums[:, -1:])

    @cached_property
    def cell_cumulative(self) -> Float64Array:
        """Running sums of popularity within each cell, ending at 1; (phases, C * S, K)."""
        cells = self.catalogue.cells.reshape(-1, self.catalogue.cells.shape[2])
        sums = np.cumsum(np.where(cells >= 0, self.popularity[:, cells], 0.0), axis=2)
        return np.asarray(sums / sums[:, :, -1:])

    def phase(self, timestamps_us: Int64Array) -> Int64Array:
        """The phase of popularity at each time."""
        phases = (timestamps_us - self.start_us) / (PHASE_DAYS * DAY_US)
        return np.clip(phases, 0, len(self.popularity) - 1).astype(np.int64)

    def next_view(self, memory: Int64Array, phases: Int64Array) -> Float64Array:
        """P(next view) after the session's newest views `memory` (B, M), newest first, -1 where
        there are fewer, at least one; (B, P). `phases` (B,): at the newest view.
        """
        return np.asarray(
            (1.0 - SESSION_END) * self.within_session(memory, phases)
            + SESSION_END * self.first_of_session(memory[:, 0], phases)
        )

    def within_session(self, memory: Int64Array, phases: Int64Array) -> Float64Array:
        """P(next view) where the session goes on; (B, P)."""
        current, depth = memory[:, 0], (memory >= 0).sum(axis=1)
        scores = self._browsing(1.0 - PLAN - RETURN, phases)
        # There is nothing to return to after a session's first view.
        plan = np.where(depth > 1, PLAN, PLAN + RETURN)
        reach = np.where(np.arange(len(STYLE_MEMORY)) < depth[:, None], STYLE_MEMORY, 0.0)
        reach *= (plan / reach.sum(axis=1))[:, None]
        later, second = np.flatnonzero(depth > 1), np.flatnonzero(depth == 1)
        of, at = self.catalogue.styles, self.grammar[self.catalogue.categories[current]]
        for option, share in enumerate(OPTIONS):
            for back in range(len(STYLE_MEMORY)):
                styles, part = of[memory[later, back]], share * reach[later, back]
                self._add_cells(scores, later, at[later, option], styles, part, phases)
            for style in range(self.catalogue.style_count):  # the second view is in any style
                styles = np.full(len(second), style)
                part = share * plan[second] / self.catalogue.style_count
                self._add_cells(scores, second, at[second, option], styles, part, phases)
        nearness = np.where(memory >= 0, 1.0 / np.arange(1, MEMORY + 1), 0.0)[later]
        nearness[:, 0] = 0.0
        nearness *= (RETURN / nearness.sum(axis=1))[:, None]
        for back in range(1, MEMORY):
            scores[later, memory[later, back]] += nearness[:, back]
        return _without(scores, current)

    def first_of_session(self, last: Int64Array, phases: Int64Array) -> Float64Array:
        """P(first view of the next session), the newest views having been `last` (B,); (B, P)."""
        scores = self._browsing(1.0 - FROM_LAST, phases)
        rows, styles = np.arange(len(last)), self.catalogue.styles[last]
        at = self.restart[self.catalogue.categories[last]]
        for option, share in enumerate(OPTIONS):
            part = np.full(len(last), FROM_LAST * share)
            self._add_cells(scores, rows, at[:, option], styles, part, phases)
        return _without(scores, last)

    def _browsing(self, share: float, phases: Int64Array) -> Float64Array:
        """(B, P + 1): the last column takes what a cell has no product for."""
        scores = np.zeros((len(phases), self.catalogue.size + 1))
        scores[:, :-1] = share * self.popularity[phases]
        return scores

    def _add_cells(
        self,
        scores: Float64Array,
        rows: Int64Array,
        categories: Int64Array,
        styles: Int64Array,
        parts: Float64Array,
        phases: Int64Array,
    ) -> None:
        """Spread parts (n,) over the products of one cell for each of `rows` (n,), in place."""
        cells = self.catalogue.cells[categories, styles]  # (n, K)
        weights = np.where(cells >= 0, self.popularity[phases[rows][:, None], cells], 0.0)
        weights *= (parts / weights.sum(axis=1))[:, None]
        scores[rows[:, None], cells] += weights


def _without(scores: Float64Array, current: Int64Array) -> Float64Array:
    """Probabilities (B, P) of scores (B, P + 1), given that it is not the current item."""
    scores = scores[:, :-1]
    scores[np.arange(len(scores)), current] = 0.0
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def make_odds(
    catalogue: Catalogue, start_us: int, days: int, rng: np.random.Generator
) -> Odds:
    """The odds of a shop whose log covers `days` from `start_us` on."""
    return Odds(
        catalogue=catalogue,
        grammar=_next_categories(catalogue.category_count, rng),
        restart=_next_categories(catalogue.category_count, rng),
        popularity=_popularity(catalogue, max(1, int(np.ceil(days / PHASE_DAYS))), rng),
        start_us=start_us,
    )


def _popularity(catalogue: Catalogue, phases: int, rng: np.random.Generator) -> Float64Array:
    """Zipf-like, each product on a slow wave of its own, some not there before they arrive."""
    products = catalogue.size
    place = np.empty(products)
    place[rng.permutation(products)] = np.arange(1, products + 1)
    middle = (np.arange(phases)[:, None] + 0.5) / phases
    waves = np.sin(2 * np.pi * (middle * rng.uniform(0.5, 1.5, products) + rng.random(products)))
    popularity = place**-0.7 * np.exp(0.8 * waves)
    late = rng.random(products) < LATE
    late[catalogue.cells[:, :, 0].ravel()] = False  # no cell is ever empty
    arrival = rng.uniform(0.1, 0.9, products)
    popularity[(middle < arrival) & late] = 0.0
    return np.asarray(popularity / popularity.sum(axis=1, keepdims=True))


def _next_categories(categories: int, rng: np.random.Generator) -> Int64Array:
    """O distinct categories for each category; (C, O)."""
    chosen = np.empty((categories, len(OPTIONS)), np.int64)
    chosen[:, 0] = rng.integers(0, categories, categories)
    for option in range(1, len(OPTIONS)):
        step = rng.integers(1, max(2, categories // 3), categories)
        chosen[:, option] = (chosen[:, option - 1] + step) % categories
    return chosen
