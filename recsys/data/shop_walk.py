"""A block of the simulated shop's shoppers, all walked at once.

Legend: n shoppers of the block, E their views. Two orders of the views are used:

    by shopper   shopper after shopper, each in time order: what a log wants
    by step      everyone's first view, everyone's second, ...: what a walk wants. Shoppers are
                 numbered from the one with most views on, so that each step is a slice.

Everything that does not depend on which products were viewed is drawn before the walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.shop_odds import (
    FROM_LAST,
    MEMORY,
    OPTIONS,
    PLAN,
    RETURN,
    SESSION_END,
    STYLE_MEMORY,
    Odds,
)

Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BROWSES, PLANS, RETURNS = 0, 1, 2
PAUSE_MEDIAN_S, PAUSE_SPREAD = 37.0, 0.9  # log-normal, between the views of a session
PAUSE_LEAST_S, PAUSE_MOST_S = 6.0, 1_200.0
SESSION_GAP_S = 2_400  # least time between two sessions
TAIL_S = 10  # the log's last seconds hold no view: a cart and a purchase must fit in
# How likely a session starts, by hour of the day (UTC) and by day of the week from Monday on.
HOURS = np.array(
    [2, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 7, 8, 7, 6, 6, 6, 7, 9, 11, 12, 10, 7, 4], float
)
WEEKDAYS = np.array([1.0, 0.95, 0.95, 1.0, 0.9, 1.15, 1.35])
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Views:
    """The views of a block, by shopper."""

    shoppers: Int64Array  # (E,) 0..n-1
    sessions: Int64Array  # (E,) number of the session, from 0 for each shopper
    products: Int64Array  # (E,)
    timestamps_us: Int64Array  # (E,)


@dataclass(frozen=True)
class _Draws:
    """What n views are to be, as far as no product need be known."""

    kinds: NDArray[np.int8]  # (n,) BROWSES, PLANS or RETURNS
    options: Int64Array  # (n,) which of the next categories
    backs: Int64Array  # (n,) views back to the one whose style, or which itself, is taken; >= 1
    any_styles: Int64Array  # (n,) style where it is anyone's, else -1
    places: Float64Array  # (n,) 0..1 within the cell's running sums
    browsed: Int64Array  # (n,) product; 0 where the kind is another

    def slice(self, first: int, last: int) -> _Draws:
        part = slice(first, last)
        return _Draws(
            self.kinds[part],
            self.options[part],
            self.backs[part],
            self.any_styles[part],
            self.places[part],
            self.browsed[part],
        )


def walk(odds: Odds, counts: Int64Array, end_us: int, rng: np.random.Generator) -> Views:
    """counts (n,) views of each shopper, fewer for one whom the log's end cuts off."""
    counts_by_step = np.argsort(-counts, kind="stable")  # shopper of each row of a step
    offsets = np.append(0, np.cumsum(counts))
    shoppers = np.repeat(np.arange(len(counts)), counts)
    steps = np.arange(len(shoppers)) - offsets[shoppers]

    starts_session = rng.random(len(shoppers)) < SESSION_END
    starts_session[steps == 0] = True
    running = np.cumsum(starts_session)
    sessions = running - running[offsets[shoppers]]
    heads = np.flatnonzero(starts_session)
    depths = np.minimum(np.arange(len(shoppers)) - heads[running - 1], MEMORY)
    times_us = _times_us(odds.start_us, end_us, shoppers, starts_session, rng)
    # Of the view before: shoppers go by what was popular when they last looked.
    phases = odds.phase(times_us)
    phases[1:] = np.where(steps[1:] > 0, phases[:-1], phases[1:])

    rows = np.empty(len(counts), np.int64)
    rows[counts_by_step] = np.arange(len(counts))
    sizes = np.bincount(steps)  # shoppers of each step
    firsts = np.append(0, np.cumsum(sizes))
    place = firsts[steps] + rows[shoppers]  # by shopper -> by step
    by_step = np.empty(len(place), np.int64)
    by_step[place] = np.arange(len(place))
    products = _Walk(odds, firsts, depths[by_step], phases[by_step], rng).products[place]
    kept = times_us < end_us - TAIL_S * 1_000_000
    return Views(shoppers[kept], sessions[kept], products[kept], times_us[kept])


def _times_us(
    start_us: int,
    end_us: int,
    shoppers: Int64Array,
    starts_session: BoolArray,
    rng: np.random.Generator,
) -> Int64Array:
    """The time of each view: sessions by the rhythm of day and week, views minutes apart."""
    owners = shoppers[starts_session]
    when = np.sort(owners + rng.random(len(owners))) - owners  # in order for each shopper
    edges, cumulative = _rhythm(start_us // 1_000, end_us // 1_000)
    due = np.interp(when, cumulative, edges).astype(np.int64)  # ms
    pauses = np.exp(rng.normal(np.log(PAUSE_MEDIAN_S), PAUSE_SPREAD, len(shoppers)))
    steps = (np.clip(pauses, PAUSE_LEAST_S, PAUSE_MOST_S) * 1_000).astype(np.int64)
    steps[starts_session] = SESSION_GAP_S * 1_000
    # time = max(due, time before + step) at a session's start, time before + step elsewhere: with
    # `walked` the sum of steps, time - walked is the running maximum of due - walked.
    walked = np.cumsum(steps)
    first = np.append(True, shoppers[1:] != shoppers[:-1])
    walked -= walked[np.flatnonzero(first)[np.cumsum(first) - 1]]
    ahead = np.full(len(shoppers), -1, np.int64)
    ahead[starts_session] = due - start_us // 1_000 - walked[starts_session]
    span = (end_us - start_us) // 1_000 + int(walked.max(initial=0)) + 1
    ahead[~starts_session] = -span
    ahead = np.maximum.accumulate(ahead + 2 * span * shoppers) - 2 * span * shoppers
    times_ms = start_us // 1_000 + ahead + walked
    return times_ms * 1_000 + start_us % 1_000


def _rhythm(start_ms: int, end_ms: int) -> tuple[Float64Array, Float64Array]:
    """Hour edges, and the share of sessions that start before each."""
    first, last = start_ms // HOUR_MS, -(-end_ms // HOUR_MS)
    hours = np.arange(first, last + 1)
    edges = np.clip(hours * float(HOUR_MS), start_ms, end_ms)
    weekdays = (hours[:-1] // 24 + 3) % 7  # 1970-01-01 was a Thursday
    weights = HOURS[hours[:-1] % 24] * WEEKDAYS[weekdays] * np.diff(edges)
    cumulative = np.append(0.0, np.cumsum(weights))
    return edges, np.asarray(cumulative / cumulative[-1])


class _Walk:
    """The products of E views, by step."""

    def __init__(
        self,
        odds: Odds,
        firsts: Int64Array,
        depths: Int64Array,
        phases: Int64Array,
        rng: np.random.Generator,
    ) -> None:
        """firsts (steps + 1,): where each step begins; depths (E,): views of the session before."""
        self.odds, self.firsts, self.rng = odds, firsts, rng
        shop = odds.catalogue
        self.nexts = np.stack((odds.restart, odds.grammar)).reshape(-1)  # (2 * C * O,)
        self.members = shop.cells.ravel()
        self.cell_cumulative = odds.cell_cumulative.ravel()
        self.shop_cumulative = (
            odds.cumulative + np.arange(len(odds.cumulative))[:, None]
        ).ravel()
        self.products = np.empty(len(depths), np.int64)
        all_draws = self._draw(depths, phases)
        count = int(firsts[1])
        # Nobody's first view has one before it: by popularity.
        self.products[:count] = self._popular(phases[:count])
        for step in range(1, len(firsts) - 1):
            first, last = int(firsts[step]), int(firsts[step + 1])
            rows = np.arange(last - first)
            part = slice(first, last)
            draws = all_draws.slice(first, last)
            self.products[part] = self._choose(step, rows, depths[part], phases[part], draws)

    def _choose(
        self, step: int, rows: Int64Array, depths: Int64Array, phases: Int64Array, draws: _Draws
    ) -> Int64Array:
        """The product of each shopper of `rows`; drawn anew while it is the current one."""
        current = self.products[self.firsts[step - 1] + rows]
        chosen = self._follow(step, rows, current, depths, phases, draws)
        again = np.flatnonzero(chosen == current)
        while len(again):
            depths_, phases_ = depths[again], phases[again]
            draws = self._draw(depths_, phases_)
            drawn = self._follow(step, rows[again], current[again], depths_, phases_, draws)
            chosen[again] = drawn
            again = again[drawn == current[again]]
        return chosen

    def _follow(
        self,
        step: int,
        rows: Int64Array,
        current: Int64Array,
        depths: Int64Array,
        phases: Int64Array,
        draws: _Draws,
    ) -> Int64Array:
        """The products that `draws` lead to."""
        shop = self.odds.catalogue
        looked_at = self.products[self.firsts[step - draws.backs] + rows]
        table = shop.categories[current] + np.where(depths > 0, shop.category_count, 0)
        categories = self.nexts[table * len(OPTIONS) + draws.options]
        styles = np.where(draws.any_styles >= 0, draws.any_styles, shop.styles[looked_at])
        cells = categories * shop.style_count + styles
        width = shop.cells.shape[2]
        at = (phases * (shop.category_count * shop.style_count) + cells) * width
        place = cells * width
        for variant in range(width - 1):
            place += self.cell_cumulative[at + variant] <= draws.places
        chosen = np.where(draws.kinds == PLANS, self.members[place], draws.browsed)
        return np.where(draws.kinds == RETURNS, looked_at, chosen)

    def _draw(self, depths: Int64Array, phases: Int64Array) -> _Draws:
        count, rng = len(depths), self.rng
        kind = rng.random(count)
        plan = np.array([FROM_LAST, PLAN + RETURN] + [PLAN] * (MEMORY - 1))[depths]
        kinds = np.where(kind < plan, PLANS, BROWSES).astype(np.int8)
        kinds[(kind >= plan) & (kind < PLAN + RETURN) & (depths > 1)] = RETURNS
        look = rng.random(count)
        backs = _BACK[depths, (look * _FINE).astype(np.int64)]
        return _Draws(kinds, count, backs)  # placeholder

    def _popular(self, phases: Int64Array) -> Int64Array:
        """A product each, by popularity in the whole shop."""
        products = self.odds.catalogue.size
        drawn = np.searchsorted(
            self.shop_cumulative, self.rng.random(len(phases)) + phases, side="right"
        )
        return np.minimum(drawn - phases * products, products - 1)
