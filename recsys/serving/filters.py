"""What of the catalogue may be shown to whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.data.vocabulary import FIRST_ITEM
from recsys.registry import Bundle
from recsys.serving.catalogue import Shelf
from recsys.serving.ranking import Bounds


@dataclass(frozen=True)
class Filters:
    """What may be shown."""

    shelf: Shelf
    excluded: frozenset[str]
    allowed: tuple[frozenset[str], ...]  # an item must be in each
    factors: tuple[tuple[frozenset[str], float], ...] = ()

    def keeps(self, item_id: str) -> bool:
        if item_id in self.excluded or item_id in self.shelf.hidden:
            return False
        return all(item_id in one for one in self.allowed)

    def why(self, item_id: str, seen: Mapping[str, str]) -> str:
        """What takes an item out, in words; `seen`: item id -> type of an event of it."""
        if item_id in self.shelf.hidden:
            return "not available"
        if item_id in seen:
            return f"already seen ({seen[item_id]})"
        return "left out by the request" if item_id in self.excluded else "not what was asked for"

    def bounds(self, bundle: Bundle) -> Bounds:
        """The same in a bundle's rows."""
        allowed = None
        for one in self.allowed:
            inside = np.zeros(len(bundle.vocabulary), np.bool_)
            inside[self.shelf.rows(bundle, one, one)] = True
            allowed = inside if allowed is None else allowed & inside
        barred = self.shelf.rows(bundle, "hidden", self.shelf.hidden)
        if self.excluded:
            encoded = bundle.vocabulary.encode(self.excluded).astype(np.int64)
            barred = np.concatenate((barred, encoded[encoded >= FIRST_ITEM]))
        return Bounds(allowed, barred)

    def row_factors(self, bundle: Bundle) -> np.ndarray | None:
        """What each row's score is multiplied by; None where there is no boost."""
        if not self.factors:
            return None
        found = np.ones(len(bundle.vocabulary), np.float32)
        for meeting, factor in self.factors:
            found[self.shelf.rows(bundle, meeting, meeting)] *= np.float32(factor)
        return found
