"""The live log as one version reads it: rows of its vocabulary, and rows beyond for items it never saw.

A new item stands behind the vocabulary, at V and up. In a history and in the ranking it has a vector:
the mean of the vectors of what stood beside it in the log, held down towards its prior where there is
one (`recsys.models.content`), so that it is copied, ranked and built upon like any other item.

Legend: V vocabulary rows, N new items, I codes of the live log, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.events.array_types import Float32Array, Int32Array, Int64Array
from recsys.events.vocabulary import UNKNOWN, Vocabulary
from recsys.models.live_log import NOWHERE, LiveArrays, LiveLog
from recsys.models.live_votes import step_votes
from recsys.models.lstm.kernels import compiled

if TYPE_CHECKING:
    from recsys.models.bundle import Bundle

HELD_DOWN = 0.5  # neighbours' weight of a prior, or of nothing where there is none
NOTHING_KNOWN = 10.0  # below the bias of new items
HOUR_US = 3_600_000_000
TRENDING = 200  # items that are counted as trending
TRENDING_US = 2_000_000  # how long one count of them is kept


class LiveVocabulary(Vocabulary):
    """A version's vocabulary, then new items, then those that one request alone knows.

    >>> live = LiveVocabulary(Vocabulary(["tea"]), ["cup"], {"cup": 3}, 1)
    >>> live.encode(["tea", "cup", "kettle"]).tolist(), len(live)
    ([2, 3, 1], 4)
    >>> live.with_items(["kettle", "cup"]).encode(["kettle", "cup"]).tolist()
    [4, 3]
    """

    def __init__(
        self,
        base: Vocabulary,
        new_ids: Sequence[str],
        new_rows: dict[str, int],
        count: int,
        own_ids: Sequence[str] = (),
    ) -> None:
        """`new_ids` and `new_rows` may grow meanwhile: the first `count` are looked at."""
        self._base, self._new_ids, self._new_rows, self._count = base, new_ids, new_rows, count
        self._end = len(base) + count
        self._own_ids = list(own_ids)
        self._own_rows = {item_id: self._end + at for at, item_id in enumerate(self._own_ids)}

    def __len__(self) -> int:
        return self._end + len(self._own_ids)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self.index(item_id) != UNKNOWN

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None

    @property
    def base(self) -> Vocabulary:
        """The version's own."""
        return self._base

    @property
    def shared(self) -> Vocabulary:
        """This one without the items that its request alone knows."""
        return LiveVocabulary(self._base, self._new_ids, self._new_rows, self._count)

    @property
    def item_ids(self) -> list[str]:
        return [*self._base.item_ids, *self.new_ids]

    @property
    def new_ids(self) -> list[str]:
        """The items beyond the version's own, by row."""
        return [*self._new_ids[: self._count], *self._own_ids]

    def index(self, item_id: str) -> int:
        found = self._base.index(item_id)
        if found != UNKNOWN:
            return found
        row = self._new_rows.get(item_id, UNKNOWN)
        return row if UNKNOWN < row < self._end else self._own_rows.get(item_id, UNKNOWN)

    def encode(self, item_ids: Iterable[str]) -> Int32Array:
        return np.fromiter((self.index(item_id) for item_id in item_ids), dtype=np.int32)

    def item_id(self, item_index: int) -> str:
        if item_index < len(self._base):
            return self._base.item_id(item_index)
        if item_index < self._end:
            return self._new_ids[item_index - len(self._base)]
        return self._own_ids[item_index - self._end]

    def with_items(self, item_ids: Iterable[str]) -> LiveVocabulary:
        """This one, and those of `item_ids` that it lacks."""
        own = dict.fromkeys(one for one in item_ids if self.index(one) == UNKNOWN)
        if not own:
            return self
        return LiveVocabulary(self._base, self._new_ids, self._new_rows, self._count, list(own))


class LiveView:
    """What one version makes of the live log. `catch_up` is called by whoever holds the log's lock."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: Float32Array,
        bias: Float32Array,
        since_us: int,
        priors: dict[str, Float32Array] | None = None,
    ) -> None:
        """table (V, D) and bias (V,) of the version's items; events until `since_us` are its own
        already; `priors`: vectors (D,) of items by their content.
        """
        self.since_us = since_us
        self._base, self._table = vocabulary, table
        self._priors = priors or {}
        known = bias[2:]
        # A new item starts as one of the rarer known ones.
        self.new_bias = float(np.quantile(known, 0.3)) if len(known) else 0.0
        self._reset()

    @classmethod
    def of(cls, bundle: Bundle, since_us: int) -> LiveView:
        """The view of a version; without a network new items have no vectors."""
        rows = len(bundle.vocabulary)
        if bundle.network is None:
            nothing = np.zeros((rows, 1), np.float32)
            return cls(bundle.vocabulary, nothing, nothing[:, 0], since_us)
        table = bundle.network.items.weight.detach().numpy()
        bias = bundle.network.item_bias.detach().numpy()
        return cls(bundle.vocabulary, table, bias, since_us)

    def _reset(self) -> None:
        self._read = 0  # events of the log
        self._log: LiveLog | None = None
        self._new_ids: list[str] = []
        self._new_rows: dict[str, int] = {}
        self.row_of: Int32Array = np.empty(0, np.int32)  # (I,) the row of each code
        # (V,) the code of each row of the version, or NOWHERE
        self.code_of: Int32Array = np.full(len(self._base), NOWHERE, np.int32)
        self._sums: Float32Array = np.zeros((64, self._table.shape[1]), np.float32)  # (N, D)
        self._weights: Float32Array = np.zeros(64, np.float32)  # (N,)
        self._trending: tuple[int, Int32Array, Float32Array] | None = None

    def catch_up(self, log: LiveLog) -> None:
        """Take in what the log was given since the last call, or all of it where it is another one."""
        if log is not self._log:
            self._reset()
            self._log = log
        if self._read == log.events:
            return
        first, self._read = self._read, log.events
        held = len(self.row_of)
        fresh = log.item_ids[held:]
        if fresh:
            rows = self._base.encode(fresh)
            old = np.flatnonzero(rows != UNKNOWN)
            self.code_of[rows[old]] = held + old
            for at in np.flatnonzero(rows == UNKNOWN):
                rows[at] = self._add(fresh[at])
            self.row_of = np.concatenate((self.row_of, rows))
        _add_neighbours(
            log.arrays, first, self._read, self.row_of, self._table, self._sums, self._weights
        )

    def _add(self, item_id: str) -> int:
        """A row for a new item."""
        number = len(self._new_ids)
        if number == len(self._weights):
            self._sums = np.concatenate((self._sums, np.zeros_like(self._sums)))
            self._weights = np.concatenate((self._weights, np.zeros_like(self._weights)))
        prior = self._priors.get(item_id)
        if prior is not None:
            self._sums[number] = HELD_DOWN * prior
            self._weights[number] = 0.0
        self._new_ids.append(item_id)
        row = len(self._base) + number
        self._new_rows[item_id] = row
        return row

    @property
    def new_ids(self) -> Sequence[str]:
        """The items beyond the version's own, by row."""
        return self._new_ids

    def vectors(self, rows: Int64Array) -> Float32Array:
        """Vectors (n, D) of rows (n,) at or beyond V; zero where nothing is known of an item."""
        sums, weights = self._sums, self._weights
        numbers = rows - len(self._base)
        found = np.zeros((len(rows), self._table.shape[1]), np.float32)
        held = numbers < min(len(self._new_ids), len(sums), len(weights))
        at = numbers[held]
        found[held] = sums[at] / (weights[at] + np.float32(HELD_DOWN))[:, None]
        return found

    def scores(self, state: Float32Array, rows: Int64Array) -> Float32Array:
        """Scores (n,) of rows (n,) at or beyond V for one state (D,).

        One that nothing is known of scores below all that something is known of.
        """
        vectors = self.vectors(rows)
        found: Float32Array = vectors @ state + np.float32(self.new_bias)
        found[~vectors.any(axis=1)] = np.float32(self.new_bias - NOTHING_KNOWN)
        return found

    def moment(self, own_items: Iterable[str], owner: int, now_us: int) -> LiveMoment:
        """The log as of now, for one asker whose history holds `own_items`."""
        assert self._log is not None
        vocabulary = LiveVocabulary(
            self._base, self._new_ids, self._new_rows, len(self._new_ids)
        ).with_items(own_items)
        return LiveMoment(
            view=self,
            vocabulary=vocabulary,
            arrays=self._log.arrays,
            events=self._read,
            sessions=self._log.sessions,
            row_of=self.row_of,
            item_codes=self._log.item_codes,
            owner=owner,
            now_us=now_us,
        )

    def trending(self, moment: LiveMoment) -> tuple[Int32Array, Float32Array]:
        """Rows of the items that most owners had in the hour before, and how many; the most first."""
        held = self._trending
        if held is None or not 0 <= moment.now_us - held[0] < TRENDING_US:
            codes, counts = _owners_by_item(moment)
            best = np.argsort(-counts, kind="stable")[:TRENDING]
            rows = moment.row_of[codes[best]]
            held = (moment.now_us, rows, counts[best].astype(np.float32))
            self._trending = held
        return held[1], held[2]


@dataclass(frozen=True)
class LiveMoment:
    """The live log at the moment of one answer, for one asker; what is added later is not in it."""

    view: LiveView
    vocabulary: LiveVocabulary
    arrays: LiveArrays
    events: int
    sessions: int
    row_of: Int32Array  # (I,)
    item_codes: Mapping[str, int]
    owner: int  # the asker's number in the log, whose own events give no votes; NOWHERE
    now_us: int

    def known(self, history: Int32Array) -> Int32Array:
        """A history (T,) as the version alone reads it: new items are unknown."""
        return np.where(history < len(self.vocabulary.base), history, UNKNOWN).astype(np.int32)

    def codes(self, rows: Int32Array) -> Int32Array:
        """The log's codes of rows (n,); NOWHERE where it does not hold an item."""
        code, name, end = self.item_codes.get, self.vocabulary.item_id, len(self.row_of)
        found = [code(name(row), NOWHERE) if row > UNKNOWN else NOWHERE for row in rows.tolist()]
        return np.array([one if one < end else NOWHERE for one in found], np.int32)

    def steps_after(
        self, items: Int32Array, ahead: int, walked: int
    ) -> tuple[Int32Array, Float32Array]:
        """Rows that followed `items` (n,), newest first, and votes (`live_votes.step_votes`)."""
        return step_votes(
            self.arrays,
            self.events,
            self.view.since_us,
            self.owner,
            self.codes(items),
            self.row_of,
            ahead,
            walked,
        )

    def trending(self) -> tuple[Int32Array, Float32Array]:
        """Rows that most owners had in the last hour, and how many."""
        return self.view.trending(self)


def _owners_by_item(moment: LiveMoment) -> tuple[Int64Array, Int64Array]:
    """Codes with an event in the hour before, and how many owners had one."""
    log, until_us = moment.arrays, moment.now_us
    times = log.times_us[: moment.events]
    at = np.flatnonzero((times > until_us - HOUR_US) & (times <= until_us))
    items = max(1, len(moment.row_of))
    pairs = np.unique(log.owners[at].astype(np.int64) * items + log.codes[at])
    return np.unique(pairs % items, return_counts=True)


@compiled
def _add_neighbours(
    log: LiveArrays,
    first: int,
    last: int,
    row_of: Int32Array,
    table: Float32Array,
    sums: Float32Array,
    weights: Float32Array,
) -> None:
    """Add to new items the vectors of known ones that stood beside them, from event `first` on."""
    known = table.shape[0]
    for event in range(first, last):
        before = log.before[event]
        if before == NOWHERE:
            continue
        one, other = row_of[log.codes[event]], row_of[log.codes[before]]
        if one < known and other >= known:
            one, other = other, one
        if one >= known and other < known:
            for d in range(table.shape[1]):
                sums[one - known, d] += table[other, d]
            weights[one - known] += np.float32(1)
