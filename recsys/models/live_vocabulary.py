"""A version's vocabulary with rows behind it for items of the live log, and of one request.

Legend: V vocabulary rows, N new items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from recsys.events.array_types import Int32Array, Int64Array
from recsys.events.vocabulary import UNKNOWN, Vocabulary


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
        self._first = len(base)  # row of the first new item
        self._end = self._first + count
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

    def new_rows(self, item_ids: Collection[str]) -> Int64Array:
        """The rows (n,) of those of `item_ids` that are beyond the version's own, in any order."""
        if len(item_ids) < self._count:
            found = map(self._new_rows.get, item_ids)
            rows = [row for row in found if row is not None and row < self._end]
        else:
            first, new_ids = len(self._base), self._new_ids
            rows = [first + n for n in range(self._count) if new_ids[n] in item_ids]
        rows += [row for one, row in self._own_rows.items() if one in item_ids]
        return np.array(rows, np.int64)

    def index(self, item_id: str) -> int:
        found = self._base.index(item_id)
        if found != UNKNOWN:
            return found
        row = self._new_rows.get(item_id, UNKNOWN)
        return row if UNKNOWN < row < self._end else self._own_rows.get(item_id, UNKNOWN)

    def encode(self, item_ids: Iterable[str]) -> Int32Array:
        names = list(item_ids)
        found = self._base.encode(names)
        if self._end > self._first or self._own_ids:
            for at in np.flatnonzero(found == UNKNOWN):
                found[at] = self.index(names[at])
        return found

    def item_id(self, item_index: int) -> str:
        if item_index < self._first:
            return self._base.item_id(item_index)
        if item_index < self._end:
            return self._new_ids[item_index - self._first]
        return self._own_ids[item_index - self._end]

    def with_items(self, item_ids: Iterable[str]) -> LiveVocabulary:
        """This one, and those of `item_ids` that it lacks."""
        beyond = self._base.lacks(item_ids)
        own = dict.fromkeys(one for one in beyond if self.index(one) == UNKNOWN)
        if not own:
            return self
        return LiveVocabulary(self._base, self._new_ids, self._new_rows, self._count, list(own))
