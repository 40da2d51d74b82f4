"""A shop with shoppers whose next click depends on order, and which knows its own probabilities.

Legend: P products, n shoppers of a block, K products of a cell, B histories, V vocabulary rows.

A shopper who has just viewed an item goes on:

    session ends (SESSION_END)     and the next one starts in the last view's kind, or one that goes
                                   with it, and in its style
    plan (PLAN of the rest)        to a kind that goes with the current one, in the style of one
                                   of the last three views, mostly of the one before the current:
                                   shoppers go to and fro between two looks; of the products that
                                   fit, by popularity
    return (RETURN)                to an earlier item of the session, the nearer the likelier
    browse (what is left)          by popularity in the whole shop

What goes with a kind is written down in `products.KINDS`; a shop that lacks some of them draws it.
Popularity drifts over the weeks and a tenth of the products arrive late. The current item is never
viewed again at once. Every probability is a function of what a log shows, so `oracle_scores` is
exact, but for the log's end and for what a next session finds popular by the time it starts, which
nobody knows before: it is the ceiling for any model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys.demo.products import KINDS, make_catalogue
from recsys.events.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from recsys.events.fields import event_table
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM, Vocabulary
from recsys.ingest.item_body import Item

SESSION_END = 1 / 7
PLAN, RETURN = 0.82, 0.08  # of a step within a session; the rest browses
FROM_LAST = 0.6  # of session starts: by the last view; the rest browses
OPTIONS = np.array([0.75, 0.17, 0.08])  # of the grammar's next categories
STYLE_MEMORY = np.array([0.05, 0.8, 0.15])  # style of the current view, one before it, two before
MEMORY = 6  # views of the session that can be returned to
LATE = 0.1  # share of products that arrive during the log
PHASE_DAYS = 3.5  # popularity is constant within a phase
CART, BUY = 0.08, 0.35  # of views; of carts
BLOCK = 10_000  # shoppers simulated together
US = 1_000_000


@dataclass(frozen=True)
class ShopSize:
    products: int = 2_000
    shoppers: int = 10_000
    events: int = 200_000  # about as many are made


class Shop:
    """One shop, the same for the same size and seed."""

    def __init__(self, size: ShopSize, seed: int, end_us: int, days: int = 42) -> None:
        """The log covers the `days` before `end_us` (µs since 1970, UTC)."""
        self.size, self.seed, self.days = size, seed, days
        self.end_us = end_us
        self.start_us = end_us - days * 86_400 * US
        rng = np.random.default_rng([seed, 0])
        self.catalogue = make_catalogue(size.products, rng)
        categories = self.catalogue.category_count
        self.grammar = _choices(rng, (categories,), categories)  # (category, options)
        self.restart = _choices(rng, (categories,), categories)
        if categories >= len(KINDS):  # with all kinds in the shop, what follows what makes sense
            self.grammar = self.catalogue.next_categories()
            # A shopper comes back to the kind that they left, or to what goes with it.
            left = np.arange(categories)[:, None]
            self.restart = np.hstack((left, self.grammar[:, :-1]))
        self.popularity = self._popularity(rng)  # (phases, P), each row sums to 1
        cumulative = np.cumsum(self.popularity, axis=1)
        self._cumulative = cumulative / cumulative[:, -1:]

    @property
    def items(self) -> list[Item]:
        return self.catalogue.items()

    def _popularity(self, rng: np.random.Generator) -> Float64Array:
        products = self.size.products
        phases = max(1, int(np.ceil(self.days / PHASE_DAYS)))
        place = np.empty(products)
        place[rng.permutation(products)] = np.arange(1, products + 1)
        base = place**-0.7
        middle = (np.arange(phases)[:, None] + 0.5) / phases
        waves = np.sin(
            2 * np.pi * (middle * rng.uniform(0.5, 1.5, products) + rng.random(products))
        )
        popularity = base * np.exp(0.8 * waves)
        late = rng.random(products) < LATE
        late[self.catalogue.cells[:, :, 0].ravel()] = False  # no cell is ever empty
        arrival = rng.uniform(0.1, 0.9, products)
        popularity[(middle < arrival) & late] = 0.0
        return popularity / popularity.sum(axis=1, keepdims=True)

    def phase(self, timestamps_us: Int64Array) -> Int64Array:
        """The phase of popularity at each time."""
        days = (timestamps_us - self.start_us) / (86_400 * US)
        return np.clip(days / PHASE_DAYS, 0, len(self.popularity) - 1).astype(np.int64)

    def events(self, chunk_events: int = 100_000) -> Iterator[pa.Table]:
        """The log as event tables (EVENT_SCHEMA) of `chunk_events` rows, shopper after shopper.

        Memory is that of a block of shoppers, whatever the size; chunking does not change the rows.
        """
        waiting: list[pa.Table] = []
        rows = 0
        for block in range(-(-self.size.shoppers // BLOCK)):
            first = block * BLOCK
            count = min(BLOCK, self.size.shoppers - first)
            waiting.append(self._block(first, count, np.random.default_rng([self.seed, 1, block])))
            rows += waiting[-1].num_rows
            while rows >= chunk_events:
                table = pa.concat_tables(waiting).combine_chunks()
                yield table.slice(0, chunk_events)
                waiting, rows = [table.slice(chunk_events)], rows - chunk_events
        if rows:
            yield pa.concat_tables(waiting).combine_chunks()

    def _block(self, first: int, count: int, rng: np.random.Generator) -> pa.Table:
        """All events of `count` shoppers, in the order of shopper and time."""
        mean = self.size.events / self.size.shoppers / (1 + CART + CART * BUY)
        activity = np.exp(rng.normal(-0.32, 0.8, count))  # mean 1, skewed
        views = np.clip(np.round(mean * activity), 1, 40 * mean + 1).astype(np.int64)
        walk = Walk(self, views, rng)
        steps = walk.run()
        shopper = np.concatenate([step[0] for step in steps])
        product = np.concatenate([step[1] for step in steps])
        time_us = np.concatenate([step[2] for step in steps])
        session = np.concatenate([step[3] for step in steps])
        order = np.lexsort((time_us, shopper))
        shopper, product = shopper[order], product[order]
        time_us, session = time_us[order], session[order]
        carts = np.flatnonzero(rng.random(len(shopper)) < CART)
        buys = carts[rng.random(len(carts)) < BUY]
        # A cart and a purchase come seconds after the view, before the shopper's next one.
        source = np.concatenate((np.arange(len(shopper)), carts, buys))
        kind = np.repeat([0, 1, 2], [len(shopper), len(carts), len(buys)])
        time_us = time_us[source] + kind * 2 * US
        order = np.lexsort((kind, time_us, shopper[source]))
        source, kind, time_us = source[order], kind[order], time_us[order]
        ids = pa.array([self.catalogue.item_id(p) for p in range(self.size.products)])
        width = max(6, len(str(self.size.shoppers)))
        users = pa.array([f"shopper-{n:0{width}d}" for n in range(first, first + count)])
        unique, place = np.unique(
            shopper[source] * 1_000_000 + session[source], return_inverse=True
        )
        sessions = pa.array(
            [f"{users[int(code // 1_000_000)]}-{code % 1_000_000}" for code in unique.tolist()]
        )
        return event_table(
            {
                "user_id": users.take(pa.array(shopper[source])),
                "session_id": sessions.take(pa.array(place)),
                "item_id": ids.take(pa.array(product[source])),
                "event_type": pa.array(["view", "cart", "purchase"]).take(pa.array(kind)),
                "timestamp_us": pa.array(time_us),
                "value": pa.array(
                    self.catalogue.prices[product[source]], mask=kind != 2, type=pa.float64()
                ),
            }
        )

    def within(self, session: Int64Array, phase: int) -> Float64Array:
        """P(next view) within a session whose views so far are `session` (products); (P,)."""
        shop = self.catalogue
        popularity = self.popularity[phase]
        scores = np.zeros(self.size.products)
        current = session[-1]
        if len(session) > 1:
            styles = shop.styles[session[-1 : -len(STYLE_MEMORY) - 1 : -1]]
            memory = STYLE_MEMORY[: len(styles)] / STYLE_MEMORY[: len(styles)].sum()
        else:  # the second view of a session is in any style
            styles = np.arange(shop.style_count)
            memory = np.full(shop.style_count, 1.0 / shop.style_count)
        earlier = session[-2 : -MEMORY - 1 : -1]  # newest first
        distance = 1.0 / np.arange(2, len(earlier) + 2)
        distance = np.where(earlier == current, 0.0, distance)
        can_return = distance.sum() > 0
        plan = PLAN + (0.0 if can_return else RETURN)
        for category, share in zip(self.grammar[shop.categories[current]], OPTIONS, strict=True):
            for style, part in zip(styles, memory, strict=True):
                cell = shop.cells[category, style]
                cell = cell[cell >= 0]
                weights = popularity[cell] / popularity[cell].sum()
                scores[cell] += plan * share * part * weights
        if can_return:
            np.add.at(scores, earlier, RETURN * distance / distance.sum())
        scores += (1.0 - PLAN - RETURN) * popularity
        scores[current] = 0.0
        return scores / scores.sum()

    def first_of_session(self, last: int, phase: int) -> Float64Array:
        """P(first view of the next session), the last view having been `last`; (P,)."""
        shop = self.catalogue
        popularity = self.popularity[phase]
        scores = (1.0 - FROM_LAST) * popularity
        for category, share in zip(self.restart[shop.categories[last]], OPTIONS, strict=True):
            cell = shop.cells[category, shop.styles[last]]
            cell = cell[cell >= 0]
            scores[cell] += FROM_LAST * share * popularity[cell] / popularity[cell].sum()
        scores[last] = 0.0
        return scores / scores.sum()

    def oracle_scores(self, histories: Histories, vocabulary: Vocabulary) -> Float32Array:
        """The shop's own probability of each item as the next view; (B, V).

        The histories hold views alone. Padding and unknown are -inf.
        """
        ids = [self.catalogue.item_id(product) for product in range(self.size.products)]
        columns = vocabulary.encode(ids)  # (P,)
        products = np.full(len(vocabulary), -1, np.int64)
        products[columns] = np.arange(self.size.products)
        known = columns >= FIRST_ITEM
        scores = np.zeros((len(histories), len(vocabulary)), np.float32)
        for row in range(len(histories)):
            start, end = int(histories.starts[row]), int(histories.ends[row])
            heads = np.flatnonzero(histories.session_starts[start:end])
            head = start + int(heads[-1]) if len(heads) else start
            session = products[histories.items[head:end]]
            session = session[session >= 0]
            if len(session) == 0:
                continue
            phase = int(self.phase(histories.timestamps_us[end - 1 : end])[0])
            chance = (1 - SESSION_END) * self.within(session, phase)
            chance += SESSION_END * self.first_of_session(int(session[-1]), phase)
            scores[row, columns[known]] = chance[known]
        scores[:, :FIRST_ITEM] = -np.inf
        return scores


class Walk:
    """A block of n shoppers, one view of each at a time."""

    def __init__(self, shop: Shop, views: Int64Array, rng: np.random.Generator) -> None:
        self.shop, self.views, self.rng = shop, views, rng
        n = len(views)
        self.memory = np.full((n, MEMORY), -1, np.int64)  # views of the session, newest first
        self.session = np.zeros(n, np.int64)
        span = shop.end_us - shop.start_us
        # Session starts: evenly over the days, by the hour of day as people shop.
        self.ends = (
            rng.random((n, int(views.max()))) < SESSION_END
        )  # the view is its session's last
        own = np.arange(self.ends.shape[1]) < views[:, None] - 1
        sessions = 1 + (self.ends & own).sum(axis=1)
        drawn = rng.random((n, int(sessions.max())))
        drawn[np.arange(drawn.shape[1]) >= sessions[:, None]] = 1.0
        self.starts = (np.sort(drawn, axis=1) * span).astype(np.int64)
        hours = rng.choice(24, self.starts.shape, p=_HOURS) * 3_600 * US
        day = 86_400 * US
        self.starts = self.starts // day * day + hours + rng.integers(0, 3_600 * US, hours.shape)
        self.starts = shop.start_us + np.sort(self.starts, axis=1)
        self.clock = self.starts[:, 0].copy()

    def run(self) -> list[tuple[Int64Array, Int64Array, Int64Array, Int64Array]]:
        """For each step: shoppers, products, times, session numbers."""
        steps = []
        new = np.ones(len(self.views), np.bool_)
        last = np.full(len(self.views), -1, np.int64)
        for step in range(int(self.views.max())):
            active = np.flatnonzero((self.views > step) & (self.clock < self.shop.end_us - 60 * US))
            if len(active) == 0:
                break
            if step:
                new = self.ends[:, step - 1]
                self._advance(active, new)
                active = active[self.clock[active] < self.shop.end_us - 60 * US]
            phase = self.shop.phase(self.clock[active])
            chosen = self.choose(active, new[active], last[active], phase)
            fresh = active[new[active]]
            self.memory[fresh] = -1
            self.memory[active, 1:] = self.memory[active, :-1]
            self.memory[active, 0] = chosen
            last[active] = chosen
            steps.append((active, chosen, self.clock[active].copy(), self.session[active].copy()))
        return steps

    def _advance(self, active: Int64Array, new: BoolArray) -> None:
        """Move the clocks: seconds to minutes within a session, to the next one at its end."""
        going, starting = active[~new[active]], active[new[active]]
        pause = np.exp(self.rng.normal(3.6, 0.9, len(going)))  # median 37 s
        self.clock[going] += (np.clip(pause, 6, 1_200) * US).astype(np.int64)
        self.session[starting] += 1
        due = self.starts[starting, np.minimum(self.session[starting], self.starts.shape[1] - 1)]
        self.clock[starting] = np.maximum(due, self.clock[starting] + 2_400 * US)

    def choose(
        self, active: Int64Array, new: BoolArray, last: Int64Array, phase: Int64Array
    ) -> Int64Array:
        """The next product of each; drawn anew while it is the current one."""
        chosen = np.full(len(active), -1, np.int64)
        left = np.arange(len(active))
        while len(left):
            at = active[left]
            drawn = self._browse(phase[left])
            first = new[left] & (last[left] >= 0)
            drawn = np.where(first, self._restart(last[left], phase[left], drawn), drawn)
            inside = ~new[left]
            if inside.any():
                drawn[inside] = self._step(self.memory[at[inside]], phase[left][inside])
            ok = drawn != last[left]
            chosen[left[ok]] = drawn[ok]
            left = left[~ok]
        return chosen

    def _browse(self, phase: Int64Array) -> Int64Array:
        cumulative = self.shop._cumulative
        flat = (cumulative + np.arange(len(cumulative))[:, None]).ravel()
        place = np.searchsorted(flat, self.rng.random(len(phase)) + phase, side="right")
        return np.clip(place - phase * cumulative.shape[1], 0, cumulative.shape[1] - 1)

    def _restart(self, last: Int64Array, phase: Int64Array, browsed: Int64Array) -> Int64Array:
        shop = self.shop.catalogue
        option = self.rng.choice(len(OPTIONS), len(last), p=OPTIONS)
        category = self.shop.restart[shop.categories[last], option]
        product = self._within_cell(category, shop.styles[last], phase)
        return np.where(self.rng.random(len(last)) < FROM_LAST, product, browsed)

    def _step(self, memory: Int64Array, phase: Int64Array) -> Int64Array:
        """A view within a session; memory (n, MEMORY) holds its earlier ones, newest first."""
        shop, n = self.shop.catalogue, len(memory)
        option = self.rng.choice(len(OPTIONS), n, p=OPTIONS)
        category = self.shop.grammar[shop.categories[memory[:, 0]], option]
        reach = memory[:, : len(STYLE_MEMORY)]
        weights = np.where(reach >= 0, STYLE_MEMORY, 0.0)
        style = shop.styles[reach[np.arange(n), _draw(weights, self.rng)]]
        style = np.where(memory[:, 1] >= 0, style, self.rng.integers(0, shop.style_count, n))
        product = self._within_cell(category, style, phase)

        distance = 1.0 / np.arange(2, MEMORY + 1)
        earlier = memory[:, 1:]
        weights = np.where((earlier >= 0) & (earlier != memory[:, :1]), distance, 0.0)
        can_return = weights.sum(axis=1) > 0
        weights[~can_return] = 1.0
        back = earlier[np.arange(n), _draw(weights, self.rng)]

        kind = self.rng.random(n)
        returning = can_return & (kind >= PLAN) & (kind < PLAN + RETURN)
        product = np.where(returning, back, product)
        return np.where(kind >= PLAN + RETURN, self._browse(phase), product)

    def _within_cell(
        self, category: Int64Array, style: Int64Array, phase: Int64Array
    ) -> Int64Array:
        cell = self.shop.catalogue.cells[category, style]  # (n, K)
        weights = np.where(cell >= 0, self.shop.popularity[phase[:, None], cell], 0.0)
        return cell[np.arange(len(cell)), _draw(weights, self.rng)]


_HOURS = np.array(
    [2, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 7, 8, 7, 6, 6, 6, 7, 9, 11, 12, 10, 7, 4], float
)
_HOURS /= _HOURS.sum()


def _choices(rng: np.random.Generator, shape: tuple[int, ...], categories: int) -> Int64Array:
    """len(OPTIONS) distinct categories for each cell of `shape`."""
    count = int(np.prod(shape))
    chosen = np.empty((count, len(OPTIONS)), np.int64)
    chosen[:, 0] = rng.integers(0, categories, count)
    for option in range(1, len(OPTIONS)):
        chosen[:, option] = (
            chosen[:, option - 1] + rng.integers(1, max(2, categories // 3), count)
        ) % categories
    return chosen.reshape(*shape, len(OPTIONS))


def _draw(weights: Float64Array, rng: np.random.Generator) -> Int64Array:
    """One column of each row of weights (n, K), by weight; (n,)."""
    cumulative = np.cumsum(weights, axis=1)
    at = rng.random(len(weights)) * cumulative[:, -1]
    return np.minimum((cumulative <= at[:, None]).sum(axis=1), weights.shape[1] - 1)
