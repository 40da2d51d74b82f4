"""Shoppers of the simulated shop who react to what they are shown, by chances that are known exactly.

Legend: n shoppers, B shown lists, K positions, P products, C categories, S styles.

Of a list, from its first position on, a shopper

    examines a position     with EXAMINED of its rank: the position-based click model
    clicks what is examined the likelier, the likelier the shop itself has them view it next, the
                            less often they saw it without a click (FATIGUE)
    buys what was clicked   the likelier, the cheaper it is

and positions are independent of each other. So the expected clicks, purchases and value of any list
are sums over its positions (`ReactingShoppers.expected`): a truth to hold an estimate against. Who
clicks views that product next; who does not goes on alone, as the shop's own shoppers do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.demo.simulation import (
    FROM_LAST,
    MEMORY,
    OPTIONS,
    PLAN,
    RETURN,
    SESSION_END,
    STYLE_MEMORY,
    Shop,
    Walk,
)
from recsys.events.array_types import Float64Array, Int64Array

EXAMINED = 0.8  # the position at rank r is examined with r ** -EXAMINED
CLICK, HALF = 0.6, 0.08  # of examined items at most; odds of a next view that reach half of it
CURIOUS = 0.01  # of examined items, whatever they are
FATIGUE = 0.75  # of a click for each time the item was shown without one
BUY, MOST_BUY, PRICE = 0.15, 0.6, 0.5  # of clicks at the middle price; at most; its exponent


def examination(positions: int) -> Float64Array:
    """The chance that each position is examined; (K,).

    >>> examination(3).round(2).tolist()
    [1.0, 0.57, 0.42]
    """
    return np.arange(1.0, positions + 1) ** -EXAMINED


@dataclass(frozen=True)
class Outcome:
    """What comes of lists: expected, or what happened."""

    clicks: Float64Array  # (B, K)
    purchases: Float64Array  # (B, K)
    value: Float64Array  # (B, K), in the shop's currency

    @property
    def totals(self) -> Float64Array:
        """Clicks, purchases and value of each list; (B, 3)."""
        return np.stack([each.sum(axis=1) for each in (self.clicks, self.purchases, self.value)], 1)


class ReactingShoppers:
    """n shoppers and what they remember: their session, and what they were shown in vain.

    The same shop, seed and calls give the same clicks.
    """

    def __init__(self, shop: Shop, count: int, seed: int) -> None:
        """Shoppers at the end of the shop's log; they have viewed nothing yet."""
        self.shop = shop
        self._rng = np.random.default_rng([seed, 2])
        self.phase = len(shop.popularity) - 1
        self.last = np.full(count, -1, np.int64)  # product viewed last, in any session
        self.shown = np.zeros((count, shop.size.products), np.uint8)  # times without a click
        self._walk = Walk(shop, np.ones(count, np.int64), self._rng)
        catalogue = shop.catalogue
        self._popularity = shop.popularity[self.phase]  # (P,)
        cells = catalogue.categories * catalogue.style_count + catalogue.styles
        sums = np.bincount(cells, self._popularity)
        self._in_cell = self._popularity / sums[cells]  # (P,) share of the product in its cell
        middle = float(np.median(catalogue.prices))
        self._buys = np.minimum(MOST_BUY, BUY * (middle / catalogue.prices) ** PRICE)  # (P,)

    @property
    def memory(self) -> Int64Array:
        """Views of the present session, newest first, -1 behind them; (n, MEMORY)."""
        return self._walk.memory

    def odds(self, who: Int64Array, lists: Int64Array) -> Float64Array:
        """P(each product is the next view), of shoppers `who` (B,) and products (B, K); (B, K).

        Of those in a session it is the shop's own `oracle_scores`.
        """
        memory, last = self.memory[who], self.last[who]
        within = self._within(memory, lists)
        first = self._first(last, lists)
        away = memory[:, :1] < 0
        return np.where(away, first, (1 - SESSION_END) * within + SESSION_END * first)

    def expected(self, who: Int64Array, lists: Int64Array) -> Outcome:
        """What lists of products (B, K) bring of shoppers `who` (B,) in their present state."""
        odds = self.odds(who, lists)
        attraction = CURIOUS + (CLICK - CURIOUS) * odds / (odds + HALF)
        tired = FATIGUE ** self.shown[who[:, None], lists].astype(np.float64)
        clicks = examination(lists.shape[1]) * attraction * tired
        purchases = clicks * self._buys[lists]
        return Outcome(clicks, purchases, purchases * self.shop.catalogue.prices[lists])

    def react(self, who: Int64Array, lists: Int64Array) -> Outcome:
        """What shoppers `who`, each once, do with their lists; their state is that afterwards."""
        expected = self.expected(who, lists)
        clicked = self._rng.random(lists.shape) < expected.clicks
        bought = clicked & (self._rng.random(lists.shape) < self._buys[lists])
        seen = self.shown[who[:, None], lists]
        self.shown[who[:, None], lists] = np.where(clicked, 0, np.minimum(seen, 254) + 1)
        for position in range(lists.shape[1]):
            here = clicked[:, position]
            self.view(who[here], lists[here, position])
        value = np.where(bought, self.shop.catalogue.prices[lists], 0.0)
        return Outcome(clicked.astype(np.float64), bought.astype(np.float64), value)

    def buying(self, products: Int64Array) -> Float64Array:
        """P(whoever has clicked each of the products buys it)."""
        return self._buys[products]

    def view(self, who: Int64Array, products: Int64Array) -> None:
        """Have each of `who` view a product."""
        self.memory[who, 1:] = self.memory[who, :-1]
        self.memory[who, 0] = products
        self.last[who] = products

    def wander(self, who: Int64Array) -> Int64Array:
        """One view of each without any list, some in a session begun just now; their products."""
        ends = self._rng.random(len(who)) < SESSION_END
        self.memory[who[ends]] = -1
        new = self.memory[who, 0] < 0
        phases = np.full(len(who), self.phase)
        viewed = self._walk.choose(who, new, self.last[who], phases)
        self.view(who, viewed)
        return viewed

    def leave(self, who: Int64Array) -> None:
        """End their sessions; they come back with what they saw last in mind."""
        self.memory[who] = -1

    def _within(self, memory: Int64Array, lists: Int64Array) -> Float64Array:
        """As `Shop.within`; (B, K)."""
        current = memory[:, :1]
        own = self._unscaled(memory, np.maximum(current, 0))
        odds = self._unscaled(memory, lists) / np.maximum(1.0 - own, 1e-12)
        return np.where(lists == current, 0.0, odds)

    def _unscaled(self, memory: Int64Array, lists: Int64Array) -> Float64Array:
        shop = self.shop.catalogue
        current = memory[:, 0]
        category = self._options(self.shop.grammar, current, lists)
        reach = memory[:, : len(STYLE_MEMORY)]
        weights = np.where(reach >= 0, STYLE_MEMORY, 0.0)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        same = shop.styles[lists][:, :, None] == shop.styles[reach][:, None, :]  # (B, K, 3)
        style = (same * weights[:, None, :]).sum(axis=2)
        alone = memory[:, 1] < 0  # the second view of a session is in any style
        style[alone] = 1.0 / shop.style_count
        earlier = memory[:, 1:]
        distance = 1.0 / np.arange(2, MEMORY + 1)
        back = np.where((earlier >= 0) & (earlier != current[:, None]), distance, 0.0)
        total = back.sum(axis=1, keepdims=True)
        can_return = total > 0
        again = (lists[:, :, None] == earlier[:, None, :]) * back[:, None, :]
        returned = again.sum(axis=2) / np.where(can_return, total, 1.0)
        plan = np.where(can_return, PLAN, PLAN + RETURN)
        browse = (1.0 - PLAN - RETURN) * self._popularity[lists]
        return plan * category * style * self._in_cell[lists] + RETURN * returned + browse

    def _first(self, last: Int64Array, lists: Int64Array) -> Float64Array:
        """As `Shop.first_of_session`; (B, K). Popularity where there was no session before."""
        own = self._first_unscaled(last, np.maximum(last, 0)[:, None])
        odds = self._first_unscaled(last, lists) / np.maximum(1.0 - own, 1e-12)
        odds = np.where(lists == last[:, None], 0.0, odds)
        return np.where(last[:, None] < 0, self._popularity[lists], odds)

    def _first_unscaled(self, last: Int64Array, lists: Int64Array) -> Float64Array:
        shop = self.shop.catalogue
        category = self._options(self.shop.restart, last, lists)
        style = shop.styles[lists] == shop.styles[last][:, None]
        planned = FROM_LAST * category * style * self._in_cell[lists]
        return planned + (1.0 - FROM_LAST) * self._popularity[lists]

    def _options(self, table: Int64Array, after: Int64Array, lists: Int64Array) -> Float64Array:
        """P(the category of each product), after products `after` (B,); (B, K)."""
        shop = self.shop.catalogue
        planned = table[shop.categories[after]]  # (B, options)
        same = shop.categories[lists][:, :, None] == planned[:, None, :]
        chance: Float64Array = (same * OPTIONS).sum(axis=2)
        return chance
