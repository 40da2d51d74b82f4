"""bench rerank: what diversity, rotation, exploration and value cost in recall, and what each of them brings.

The version is trained on what came before the cut, as `recsys train` does, and ranks each position at its
moment with the live log, as `bench replay` does. The same ranking is then put into another order by each
setting, and the first K are what the visitor is taken to have been shown.

Legend: P positions, K items shown, C candidates, D width, V rows.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.replay import K, trained_version
from recsys.config import Settings
from recsys.errors import NotEnoughDataError
from recsys.events.array_types import Float32Array, Float64Array, Int64Array
from recsys.events.times import DAY_US
from recsys.events.vocabulary import FIRST_ITEM
from recsys.ingest.item_body import Item
from recsys.models.bundle import Bundle
from recsys.models.ranking import best, item_vectors, sources_of
from recsys.serving.answers import Candidate
from recsys.serving.steering.business_value import by_value, chances_of
from recsys.serving.steering.diversity import diversified
from recsys.serving.steering.exploration import POOL, drawn_places, most_uncertain, pools_of
from recsys.serving.steering.rotation import Showing, sunk_items
from recsys.training.evaluate import window_positions
from recsys.training.event_log import EventLog
from recsys.training.replay import Moment, Replay
from recsys.training.report import Bootstrap, rounded
from recsys.training.run import Run

CANDIDATES = K + 200  # as an answer looks at
DELAY_US = 1_000_000  # after which what other visitors did is known
DRAWS = 1_000
OFTEN = 3  # showings in a day after which one more counts as repeated
NAMES = ("recall@20", "mrr@20", "diversity", "categories", "repeated", "value")


@dataclass(frozen=True)
class Window:
    """The candidates of one position, best first, and what the settings order them by."""

    moment: Moment
    owner: int
    now_us: int
    rows: Int64Array  # (C,)
    scores: Float32Array  # (C,)
    sources: list[str]
    vectors: Float32Array  # (C, D)
    items: list[str]  # (C,) their ids
    events: Float64Array  # (C,) owners in the training's data
    prices: Float64Array  # (C,) NaN where there is none


Order = Callable[[Window, "Shown"], Int64Array]  # the places of the K shown


@dataclass
class Shown:
    """What one setting has shown so far."""

    lists: dict[int, list[tuple[int, list[str]]]] = field(default_factory=lambda: defaultdict(list))
    items: set[str] = field(default_factory=set)
    values: list[tuple[float, ...]] = field(default_factory=list)  # (P, NAMES)
    seconds: list[float] = field(default_factory=list)

    def showings(self, owner: int, since_us: int) -> list[Showing]:
        """What `owner` was shown since then."""
        return [
            Showing(item_id, at_us)
            for at_us, shown in self.lists[owner]
            if at_us > since_us
            for item_id in shown
        ]


def diversity(knob: float) -> Order:
    return lambda window, _: diversified(window.vectors, knob, K)[:K]


def rotation(times: int, hours: float) -> Order:
    span_us = round(hours * 3.6e9)

    def order(window: Window, shown: Shown) -> Int64Array:
        history, bundle = window.moment.history, window.moment.bundle
        touched = {
            bundle.vocabulary.item_id(int(row)): int(at_us)
            for row, at_us in zip(history.items, history.timestamps_us, strict=True)
            if row >= FIRST_ITEM
        }
        past = shown.showings(window.owner, window.now_us - 2 * span_us)
        sunk = sunk_items(past, touched, times, span_us, window.now_us)
        sinks = np.array([item_id in sunk for item_id in window.items], np.bool_)
        return np.argsort(sinks, kind="stable")[:K]

    return order


def exploration(share: float) -> Order:
    def order(window: Window, _: Shown) -> Int64Array:
        chosen = np.arange(min(K, len(window.rows)))
        tried = K + most_uncertain(window.events[K:], POOL * K)
        pools = pools_of(tried.tolist(), chosen.tolist())
        sizes = np.array([len(pools[at]) for at in chosen.tolist()], np.int64)
        drawn = drawn_places(str(window.moment.number), sizes, share)
        for at in np.flatnonzero(drawn >= 0):
            chosen[at] = pools[int(at)][drawn[at]]
        return chosen

    return order


def chance_times_price(window: Window, _: Shown) -> Int64Array:
    listed = zip(window.items, window.scores.tolist(), window.sources, strict=True)
    candidates = [Candidate(*one) for one in listed]
    ranked_by = {*sources_of(window.moment.bundle)} - {"popular"}
    worth = chances_of(candidates, ranked_by) * window.prices
    places = {item_id: at for at, item_id in enumerate(window.items)}
    best_first = by_value(candidates, worth, ranked_by)[:K]
    return np.array([places[one.item_id] for one in best_first], np.int64)


ORDERS: Mapping[str, Order] = {
    "ranking": lambda window, _: np.arange(min(K, len(window.rows))),
    **{f"diversity {knob}": diversity(knob) for knob in (0.1, 0.2, 0.3, 0.5, 0.7)},
    **{f"rotation {times} in 24 h": rotation(times, 24) for times in (1, 3, 5)},
    **{f"explore {share}": exploration(share) for share in (0.05, 0.1, 0.2)},
    "chance * price": chance_times_price,
}


def run_reranking(
    log: EventLog,
    cut_us: int,
    settings: Settings,
    items: Mapping[str, Item],
    limit: int,
    run: Run,
) -> dict[str, Any]:
    """Figures of every setting over at most `limit` positions after the cut, drawn by whole sequences.

    `items`: the catalogue, where there is one. Raises NotEnoughDataError.
    """
    bundle = trained_version(log, settings, cut_us, None, run)
    positions = window_positions(log, bundle, cut_us)
    positions = positions.sample(limit, np.random.default_rng(settings.training.seed))
    if len(positions) == 0:
        raise NotEnoughDataError("no event after the cut has one before it in its sequence")
    replay = Replay(log, bundle, bundle.facts.data_end_us + 1, DELAY_US)
    shown = {name: Shown() for name in ORDERS if items or name != "chance * price"}
    owners, known = [], _counts(bundle)
    for number, moment in enumerate(replay.moments(positions)):
        owner = int(positions.owners[moment.number])
        now_us = int(log.sequences.timestamps_us[positions.histories.ends[moment.number]])
        window = _window(moment, owner, now_us, known, items)
        wanted = {int(row) for row in moment.wanted if row >= FIRST_ITEM}
        for name, one in shown.items():
            _note(one, ORDERS[name], window, wanted, items)
        owners.append(owner)
        if number % 1_000 == 999:
            run.say(f"played {number + 1:,} positions")
    bootstrap = Bootstrap(np.array(owners), DRAWS, settings.training.seed)
    base = np.array(shown["ranking"].values)
    catalogue = len(log.item_ids)
    return rounded(
        {
            "positions": len(positions),
            "catalogue": catalogue,
            "candidates": CANDIDATES,
            "results": {
                name: _figures(one, base, bootstrap, catalogue) for name, one in shown.items()
            },
        }
    )


def _counts(bundle: Bundle) -> Float64Array:
    """(V,) users and sessions of each row in the training's data."""
    rows, counts = bundle.rankers["popular"].votes(bundle.vocabulary.encode([]))
    found = np.zeros(len(bundle.vocabulary))
    found[rows] = counts
    return found


def _window(
    moment: Moment, owner: int, now_us: int, counts: Float64Array, items: Mapping[str, Item]
) -> Window:
    bundle = moment.bundle
    ranked = best(bundle, moment.history, CANDIDATES, moment.recent)
    rows = np.array([row for row, _, _ in ranked], np.int64)
    ids = [bundle.vocabulary.item_id(int(row)) for row in rows]
    new = rows >= len(counts)
    found = [items.get(item_id) for item_id in ids]
    prices = [np.nan if one is None or one.price is None else one.price for one in found]
    return Window(
        moment,
        owner,
        now_us,
        rows,
        np.array([score for _, score, _ in ranked], np.float32),
        [source for _, _, source in ranked],
        item_vectors(bundle, rows),
        ids,
        np.where(new, 0.0, counts[np.where(new, 0, rows)]),
        np.array(prices, np.float64),
    )


def _note(
    shown: Shown, order: Order, window: Window, wanted: set[int], items: Mapping[str, Item]
) -> None:
    """Show the first K by `order` to the visitor, and write down what came of it."""
    started = time.perf_counter()
    places = order(window, shown)
    shown.seconds.append(time.perf_counter() - started)
    listed = [window.items[at] for at in places]
    hits = [rank for rank, at in enumerate(places, 1) if int(window.rows[at]) in wanted]
    rank = hits[0] if hits else None
    price = 0.0 if rank is None else np.nan_to_num(window.prices[places[rank - 1]])
    before = Counter(one.item_id for one in shown.showings(window.owner, window.now_us - DAY_US))
    shown.values.append(
        (
            float(rank is not None),
            0.0 if rank is None else 1 / rank,
            _unlikeness(window.vectors[places]),
            float(len({c for one in listed if one in items for c in items[one].categories})),
            sum(before[one] >= OFTEN for one in listed) / max(1, len(listed)),
            0.0 if rank is None else price / rank,
        )
    )
    shown.items.update(listed)
    shown.lists[window.owner].append((window.now_us, listed))


def _unlikeness(vectors: Float32Array) -> float:
    """1 - the mean cosine of two different ones of vectors (K, D)."""
    count = len(vectors)
    if count < 2:
        return 1.0
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)[:, None]
    lengths = float((unit * unit).sum())
    return 1 - (float((unit.sum(axis=0) ** 2).sum()) - lengths) / (count * (count - 1))


def _figures(
    shown: Shown, base: Float64Array, bootstrap: Bootstrap, catalogue: int
) -> dict[str, Any]:
    """Means over the positions, each with its interval, and minus those of the ranking itself."""
    values = np.array(shown.values)  # (P, NAMES)
    low, high = np.percentile(bootstrap.means(values), (2.5, 97.5), axis=0)
    less, more = np.percentile(bootstrap.means(values - base), (2.5, 97.5), axis=0)
    found: dict[str, Any] = {
        "coverage@20": len(shown.items) / catalogue,
        "milliseconds_p50": 1e3 * float(np.median(shown.seconds)),
        "milliseconds_p99": 1e3 * float(np.percentile(shown.seconds, 99)),
    }
    for at, name in enumerate(NAMES):
        found |= {
            name: float(values[:, at].mean()),
            f"{name}_low": float(low[at]),
            f"{name}_high": float(high[at]),
            f"{name}_change": float((values - base)[:, at].mean()),
            f"{name}_change_low": float(less[at]),
            f"{name}_change_high": float(more[at]),
        }
    return found
