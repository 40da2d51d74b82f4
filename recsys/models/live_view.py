"""The live log as one version reads it: rows of its vocabulary, and rows beyond for items it never saw.

A new item stands behind the vocabulary, at V and up. In a history and in the ranking it has a vector:
the mean of the vectors of what stood beside it in the log, held down towards its prior where there is
one (`recsys.models.content`), so that it is copied, ranked and built upon like any other item.

Legend: V vocabulary rows, N new items, I codes of the live log, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recsys.events.array_types import Float32Array, Int32Array, Int64Array
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN, Vocabulary
from recsys.models.content import ContentMap, Contents, ItemContent
from recsys.models.live_log import NOWHERE, LiveArrays, LiveLog
from recsys.models.live_vocabulary import LiveVocabulary
from recsys.models.live_votes import look_up, step_votes, vote_tables
from recsys.models.lstm.kernels import compiled

if TYPE_CHECKING:
    from recsys.models.bundle import Bundle

HELD = np.float32(0.5)  # weight of a prior, or of nothing where there is none, beside neighbours
DESCRIBED = 20_000  # items that have a row by their content alone
NOTHING_KNOWN = 10.0  # below the bias of new items
ID_BYTES = 200  # of an item id and its places in tables
TRENDING = 200  # items that are counted as trending
TRENDING_EVENTS = 200_000  # the newest events of a window that are counted
KEPT_SHARE = 1 / 1_000  # of a window: how long one count of it is kept


class Prior(NamedTuple):
    """What the catalogue tells of an item."""

    content: ItemContent  # that it was made of
    vector: Float32Array  # (D,)


class LiveView:
    """What one version makes of the live log. `catch_up` is called by whoever holds the log's lock."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: Float32Array,
        bias: Float32Array,
        since_us: int,
        content: ContentMap | None = None,
    ) -> None:
        """table (V, D) and bias (V,) of the version's items; events until `since_us` are its own
        already; `content` gives items of the catalogue their vectors.
        """
        self.since_us = since_us
        self._base, self._table = vocabulary, table
        self._content = content
        self._priors: dict[str, Prior] = {}
        known = bias[FIRST_ITEM:]
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
        held = bundle.network.arrays()
        table, bias = held["items.weight"], held["item_bias"]
        return cls(bundle.vocabulary, table, bias, since_us, bundle.content)

    def _reset(self) -> None:
        self._read = 0  # events of the log
        self.standing = object()  # another whenever anything of the view has changed
        self._log: LiveLog | None = None
        self._new_ids: list[str] = []
        self._new_rows: dict[str, int] = {}
        self.row_of: Int32Array = np.empty(0, np.int32)  # (I,) the row of each code
        # (V,) the code of each row of the version, or NOWHERE
        self.code_of: Int32Array = np.full(len(self._base), NOWHERE, np.int32)
        self._sums: Float32Array = np.zeros((64, self._table.shape[1]), np.float32)  # (N, D)
        self._weights: Float32Array = np.zeros(64, np.float32)  # (N,)
        self._prior_vectors: Float32Array = np.zeros((64, self._table.shape[1]), np.float32)
        self._trending: dict[int, tuple[int, Int32Array, Float32Array]] = {}  # by window
        self._rows_described = len(self._priors)  # that were made for what the catalogue tells
        for item_id in self._priors:
            self._add(item_id)

    @property
    def reads_content(self) -> bool:
        """Whether the version has vectors for what the catalogue tells."""
        return self._content is not None

    @property
    def bytes(self) -> int:
        """What the view takes, in bytes; texts and their tables as estimated."""
        arrays = self._sums, self._weights, self._prior_vectors, self.row_of, self.code_of
        texts = ID_BYTES * len(self._new_ids)
        priors = (ID_BYTES + 4 * self._table.shape[1]) * len(self._priors)
        return sum(part.nbytes for part in arrays) + texts + priors

    def priors(self, contents: Contents) -> dict[str, Prior]:
        """What the catalogue tells of the items that the version does not know, of DESCRIBED at most.

        `contents`: the newest item first. Needs no lock; unchanged items are not worked out again.
        """
        if self._content is None:
            return {}
        index, held = self._base.index, self._priors
        told = (one for one in contents if not contents[one].is_empty and index(one) == UNKNOWN)
        new = list(itertools.islice(told, DESCRIBED))
        fresh = [one for one in new if one not in held or held[one].content is not contents[one]]
        vectors = self._content.vectors([contents[one] for one in fresh])
        made = {
            one: Prior(contents[one], vector) for one, vector in zip(fresh, vectors, strict=True)
        }
        return {one: made.get(one) or held[one] for one in new}

    def describe(self, priors: dict[str, Prior]) -> None:
        """Put `priors` in place of all before; each of their items has a row from then on."""
        before, self._priors = self._priors, priors
        self.standing = object()
        for item_id in before.keys() - priors.keys():
            self._set_prior(self._new_rows[item_id] - len(self._base))
        for item_id, prior in priors.items():
            row = self._new_rows.get(item_id)
            if row is None:
                self._add(item_id)
                self._rows_described += 1
            elif prior is not before.get(item_id):
                self._set_prior(row - len(self._base))
        if self._rows_described > 2 * DESCRIBED:  # rows of items that were new once
            self._log = None  # so that the next call of `catch_up` begins anew

    def _set_prior(self, number: int) -> None:
        prior = self._priors.get(self._new_ids[number])
        self._prior_vectors[number] = 0.0 if prior is None else prior.vector

    def catch_up(self, log: LiveLog) -> None:
        """Take in what the log was given since the last call, or all of it where it is another one."""
        if log is not self._log:
            self._reset()
            self._log = log
        if self._read == log.events:
            return
        first, self._read = self._read, log.events
        self.standing = object()
        held = len(self.row_of)
        fresh = log.item_ids[held:]
        if fresh:
            rows = self._base.encode(fresh)
            old = np.flatnonzero(rows != UNKNOWN)
            self.code_of[rows[old]] = held + old
            for at in np.flatnonzero(rows == UNKNOWN):
                rows[at] = self._new_rows.get(fresh[at]) or self._add(fresh[at])
            self.row_of = np.concatenate((self.row_of, rows))
        _add_neighbours(
            log.arrays, first, self._read, self.row_of, self._table, self._sums, self._weights
        )

    def _add(self, item_id: str) -> int:
        """A row for a new item."""
        number = len(self._new_ids)
        if number == len(self._weights):
            self._sums, self._weights, self._prior_vectors = (
                np.concatenate((held, np.zeros_like(held)))
                for held in (self._sums, self._weights, self._prior_vectors)
            )
        self._new_ids.append(item_id)
        self._set_prior(number)
        row = len(self._base) + number
        self._new_rows[item_id] = row
        return row

    @property
    def new_ids(self) -> Sequence[str]:
        """The items beyond the version's own, by row."""
        return self._new_ids

    def vectors(self, rows: Int64Array) -> Float32Array:
        """Vectors (n, D) of rows (n,) at or beyond V; zero where nothing is known of an item."""
        sums, weights, priors = self._sums, self._weights, self._prior_vectors
        numbers = rows - len(self._base)
        found = np.zeros((len(rows), self._table.shape[1]), np.float32)
        held = numbers < min(len(self._new_ids), len(sums), len(weights), len(priors))
        at = numbers[held]
        found[held] = (sums[at] + HELD * priors[at]) / (weights[at] + HELD)[:, None]
        return found

    def scores(self, state: Float32Array, rows: Int64Array) -> Float32Array:
        """Scores (n,) of rows (n,) at or beyond V for one state (D,).

        One that nothing is known of scores below all that something is known of.
        """
        parts = self._sums, self._weights, self._prior_vectors
        numbers = rows - len(self._base)
        floor = np.float32(self.new_bias - NOTHING_KNOWN)
        found = np.full(len(rows), floor, np.float32)
        held = numbers < min(len(self._new_ids), *map(len, parts))
        found[held] = _scores(state, *parts, numbers[held], np.float32(self.new_bias), floor)
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
            standing=self.standing,
        )

    def trending(self, moment: LiveMoment, window_us: int) -> tuple[Int32Array, Float32Array]:
        """Rows of the items that most owners had in the `window_us` before, and how many; the most
        first. A count is kept for KEPT_SHARE of the window.
        """
        held = self._trending.get(window_us)
        if held is None or not 0 <= moment.now_us - held[0] < KEPT_SHARE * window_us:
            codes, counts = _owners_by_item(moment, window_us)
            best = np.argsort(-counts, kind="stable")[:TRENDING]
            rows = moment.row_of[codes[best]]
            held = (moment.now_us, rows, counts[best].astype(np.float32))
            self._trending[window_us] = held
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
    standing: object = None  # the same one as long as the view is the same

    def known(self, history: Int32Array) -> Int32Array:
        """A history (T,) as the version alone reads it: new items are unknown."""
        return np.where(history < len(self.vocabulary.base), history, UNKNOWN).astype(np.int32)

    def codes(self, rows: Int32Array) -> Int32Array:
        """The log's codes of rows (n,); NOWHERE where it does not hold an item."""
        found, newer = look_up(rows, self.view.code_of, len(self.row_of))
        if newer:
            for at in np.flatnonzero(rows >= len(self.view.code_of)):
                code = self.item_codes.get(self.vocabulary.item_id(int(rows[at])), NOWHERE)
                found[at] = code if code < len(self.row_of) else NOWHERE
        return found

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
            vote_tables(),
        )

    def trending(self, window_us: int) -> tuple[Int32Array, Float32Array]:
        """Rows that most owners had in the `window_us` before, and how many."""
        return self.view.trending(self, window_us)


def _owners_by_item(moment: LiveMoment, window_us: int) -> tuple[Int64Array, Int64Array]:
    """Codes with an event in the `window_us` before, and how many owners had one: of the newest
    TRENDING_EVENTS events.
    """
    log, until_us = moment.arrays, moment.now_us
    first = max(0, moment.events - TRENDING_EVENTS)
    times = log.times_us[first : moment.events]
    at = first + np.flatnonzero((times > until_us - window_us) & (times <= until_us))
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


@compiled
def _scores(
    state: Float32Array,
    sums: Float32Array,
    weights: Float32Array,
    priors: Float32Array,
    numbers: Int64Array,
    bias: np.float32,
    floor: np.float32,
) -> Float32Array:
    """Scores (n,) of new items by their `numbers` (n,); `floor` where an item's vector is zero."""
    found = np.empty(len(numbers), np.float32)
    for at in range(len(numbers)):
        number = numbers[at]
        product, length = np.float32(0), np.float32(0)
        for d in range(len(state)):
            value = sums[number, d] + HELD * priors[number, d]
            product += value * state[d]
            length += value * value
        if length > 0:
            found[at] = product / (weights[number] + HELD) + bias
        else:
            found[at] = floor
    return found
