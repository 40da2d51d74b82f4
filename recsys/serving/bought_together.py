"""Items that are bought together: what stood in the same baskets, read from the log once an hour.

A basket is what one owner (a user, or a session of no user) put into the cart or bought in one session; of
events without a session, on one day. Each item counts once in a basket.

Legend: n events, P pairs of basket and item, I items.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from recsys.errors import ConfigError, StorageUnavailableError
from recsys.events.array_types import Int64Array
from recsys.events.times import DAY_US
from recsys.serving.long_work import long_work
from recsys.storage.engine.database import Database
from recsys.storage.entities.live_events import LiveBatch
from recsys.storage.entities.live_marks import read_live_marks
from recsys.storage.events_source import EventsSource

CART_TYPES = ("cart", "Cart", "add_to_cart", "addtocart", "add-to-cart", "Product Added")
DAYS = 90
CAPACITY = 500_000  # events of all types among which baskets are looked for, the newest
KEEP_SECONDS = 3_600.0
MAX_BASKET = 100  # items; what holds more is a list, not a basket
MAX_BASKETS = 5_000  # of one item, the newest
DAMPING = 5.0  # baskets that are added to an item's own, so that one basket is no proof
ITEM_BYTES = 200  # of an item's id


@dataclass(frozen=True)
class Baskets:
    """Baskets and items, each way as rows of P pairs."""

    item_ids: list[str]  # (I,)
    codes: dict[str, int]
    item_starts: Int64Array  # (I + 1,) into `by_item`
    by_item: Int64Array  # (P,) baskets, the newest of an item last
    basket_starts: Int64Array  # into `by_basket`
    by_basket: Int64Array  # (P,) items

    @property
    def bytes(self) -> int:
        """What they take, in bytes; texts as estimated."""
        arrays = (self.item_starts, self.by_item, self.basket_starts, self.by_basket)
        return sum(one.nbytes for one in arrays) + ITEM_BYTES * len(self.item_ids)

    def together(self, item_ids: Collection[str]) -> list[tuple[str, float]]:
        """(item id, score) of what stood in baskets with `item_ids`, the highest score first.

        The score is the cosine of two items over baskets, damped, as a mean over the given items.
        """
        asked = [self.codes[one] for one in dict.fromkeys(item_ids) if one in self.codes]
        sizes = np.diff(self.item_starts)
        scores = np.zeros(len(self.item_ids))
        for code in asked:
            own = self.by_item[self.item_starts[code] : self.item_starts[code + 1]][-MAX_BASKETS:]
            if not len(own):  # it stood in long lists alone
                continue
            parts = [
                self.by_basket[self.basket_starts[one] : self.basket_starts[one + 1]] for one in own
            ]
            counts = np.bincount(np.concatenate(parts), minlength=len(scores))
            scores += counts / np.sqrt((len(own) + DAMPING) * (sizes + DAMPING))
        scores[asked] = 0
        best = np.argsort(-scores, kind="stable")[: np.count_nonzero(scores)]
        mean = max(1, len(asked))
        return [(self.item_ids[row], round(float(scores[row]) / mean, 6)) for row in best]


def baskets_of(batches: Sequence[LiveBatch]) -> Baskets:
    """The baskets of these events."""
    codes: dict[str, int] = {}
    keys: list[tuple[str, object]] = []
    items: list[int] = []
    for batch in batches:
        days = (batch.times_us // DAY_US).tolist()
        rows = zip(batch.owners, batch.item_ids, days, batch.session_ids, strict=True)
        for owner, item_id, day, session_id in rows:
            keys.append((owner, session_id or day))
            items.append(codes.setdefault(item_id, len(codes)))
    numbers: dict[tuple[str, object], int] = {}
    baskets = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    width = max(1, len(codes))
    pairs = np.unique(baskets * width + np.array(items, np.int64))  # (P,) by basket, then item
    sizes = np.bincount(pairs // width, minlength=len(numbers))
    pairs = pairs[(sizes <= MAX_BASKET)[pairs // width]]
    of_basket, of_item = pairs // width, pairs % width
    return Baskets(
        list(codes),
        codes,
        _starts(of_item, len(codes)),
        of_basket[np.argsort(of_item, kind="stable")],
        _starts(of_basket, len(numbers)),
        of_item,
    )


def _starts(rows: Int64Array, count: int) -> Int64Array:
    return np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=count)))).astype(np.int64)


class BasketTable:
    """The baskets of one process, read anew once an hour and after erasures.

    One thread reads; the others go by what was read last meanwhile. The first wait for it.
    """

    def __init__(
        self,
        database: Database,
        source: EventsSource,
        types: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        """`types`: of purchases; carts are added."""
        self._database, self._source, self._clock = database, source, clock
        self._types = frozenset({*types, *CART_TYPES})
        self._reading = threading.Lock()
        self._held: Baskets | None = None
        self._read_at, self._marks = 0.0, (0, 0)

    @property
    def bytes(self) -> int:
        """What is held, in bytes."""
        return 0 if self._held is None else self._held.bytes

    def at(self, now_us: int) -> Baskets:
        """The baskets of the last DAYS. Raises StorageUnavailableError where there are none yet."""
        held = self._held
        with self._database.connect() as connection:
            marks = read_live_marks(connection)
        erased = (marks.tombstones, marks.removals)
        fresh = self._clock() - self._read_at < KEEP_SECONDS and erased == self._marks
        if held is not None and fresh:
            return held
        if held is None or not self._reading.locked():
            long_work()
        if self._reading.acquire(blocking=held is None):
            try:
                if self._held is held:
                    self._held = self._read(now_us)
                    self._read_at, self._marks = self._clock(), erased
            finally:
                self._reading.release()
        if self._held is None:
            raise StorageUnavailableError("baskets are being read")
        return self._held

    def _read(self, now_us: int) -> Baskets:
        batches, more = [], True
        try:
            with closing(self._source.follow(now_us - DAYS * DAY_US, CAPACITY)) as follower:
                while more:
                    batch = follower.read(now_us)
                    kept = np.array([one in self._types for one in batch.event_types], np.bool_)
                    batches.append(batch.chosen(kept))
                    more = batch.more
        except ConfigError:  # an external table that cannot be followed
            return baskets_of([])
        return baskets_of(batches)
