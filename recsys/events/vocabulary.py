"""item_id (outside, text) <-> item_index (inside, dense). Frozen once built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import repeat

import numpy as np

from recsys.events.array_types import Int32Array, Int64Array

PADDING = 0
UNKNOWN = 1
FIRST_ITEM = 2


class Vocabulary:
    """The items a model knows, numbered from `FIRST_ITEM` in the order given.

    Index 0 is padding; index 1 stands for any item outside the vocabulary, so that an unknown item
    keeps its place in a sequence. Neither is ever ranked.

    >>> vocabulary = Vocabulary(["tea", "cup"])
    >>> vocabulary.encode(["cup", "kettle", "tea"]).tolist()
    [3, 1, 2]
    >>> vocabulary.item_id(3)
    'cup'
    """

    def __init__(self, item_ids: Sequence[str]) -> None:
        self._item_ids = list(item_ids)
        self._index = {item_id: index for index, item_id in enumerate(self._item_ids, FIRST_ITEM)}
        if len(self._index) != len(self._item_ids):
            raise ValueError("item ids repeat")

    def __len__(self) -> int:
        """Rows of an embedding table: the items and the two special rows."""
        return len(self._item_ids) + FIRST_ITEM

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._item_ids == other._item_ids

    __hash__ = None  # type: ignore[assignment]

    def without(self, rows: Int64Array) -> Vocabulary:
        """The same rows, of which `rows` (n,) are no items any more: they are never looked up.

        >>> Vocabulary(["tea", "cup"]).without(np.array([3])).encode(["tea", "cup"]).tolist()
        [2, 1]
        """
        found = Vocabulary(self._item_ids)
        gone = set(rows.tolist())
        found._index = {name: row for name, row in self._index.items() if row not in gone}
        return found

    @property
    def item_ids(self) -> list[str]:
        """All item ids by index, without the two special rows."""
        return self._item_ids

    @cached_property
    def item_count(self) -> int:
        return len(self._item_ids)

    def index(self, item_id: str) -> int:
        """The index of `item_id`, or UNKNOWN."""
        return self._index.get(item_id, UNKNOWN)

    def lacks(self, item_ids: Iterable[str]) -> list[str]:
        """Those of `item_ids` that are not known."""
        known = self._index
        return [item_id for item_id in item_ids if item_id not in known]

    def encode(self, item_ids: Iterable[str]) -> Int32Array:
        """Indices of `item_ids`, UNKNOWN where one is not known; shape (n,)."""
        return np.array(list(map(self._index.get, item_ids, repeat(UNKNOWN))), np.int32)

    def item_id(self, item_index: int) -> str:
        """The id at `item_index`. Raises IndexError for padding, unknown, or beyond the end."""
        if item_index < FIRST_ITEM:
            raise IndexError(item_index)
        return self._item_ids[item_index - FIRST_ITEM]
