"""Item lists that are not personal: similar, following, popular and trending items, and those bought
together.

Those of the model go by the live log too, where it is followed: an item newer than the model has
neighbours and followers as soon as others have gone from or to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recsys.errors import NotFoundError
from recsys.events.array_types import Float32Array
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle
from recsys.models.ranking import top_k, votes_of
from recsys.serving.answers import RankedItem
from recsys.serving.bought_together import BasketTable
from recsys.serving.item_snapshot import Catalogue, ItemSet, ItemSnapshot
from recsys.serving.live_state import LiveState
from recsys.serving.popularity import Popularity
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.stamps import read_stamps

LOOKED_AT = (
    4  # items that are looked up for each that is asked for, where some may be of no catalogue
)


class ItemScores(NamedTuple):
    """A score (V,) for each item of a vocabulary, -inf for none, and the component it is of."""

    scores: Float32Array
    source: str


def similarity(bundle: Bundle, item_id: str) -> ItemScores | None:
    """The cosine of every item's vector with that of `item_id`; without a network, what followed it.

    None where neither the model nor the live log tells anything of it.
    """
    if bundle.scorer is None or bundle.network_name is None:
        return followed_by(bundle, item_id)
    if item_id not in bundle.vocabulary:
        return None
    index, rows = bundle.vocabulary.index(item_id), bundle.scorer.rows
    new = None
    if bundle.live is not None:
        new = bundle.live.view.vectors(np.arange(rows, len(bundle.vocabulary), dtype=np.int64))
        if index >= rows and not new[index - rows].any():
            return None
    cosines = bundle.scorer.similar(index, new)
    if new is not None:
        cosines[rows:][~new.any(axis=1)] = -np.inf
    cosines[:FIRST_ITEM] = -np.inf
    cosines[index] = -np.inf
    return ItemScores(cosines, bundle.network_name)


def followed_by(bundle: Bundle, item_id: str) -> ItemScores | None:
    """How often every item came right after `item_id`; None where nothing is known of it."""
    if item_id not in bundle.vocabulary:
        return None
    index = bundle.vocabulary.index(item_id)
    places, votes = votes_of(bundle, np.array([index], np.int32), ["transitions"])["transitions"]
    is_new = bundle.live is not None and index >= len(bundle.live.vocabulary.base)
    if is_new and len(places) == 0:
        return None
    row = np.full(len(bundle.vocabulary), -np.inf, np.float32)
    row[places] = votes
    row[:FIRST_ITEM] = -np.inf
    return ItemScores(row, "transitions")


@dataclass(frozen=True)
class ItemLists:
    """Lists by the champion and the counts. Every list raises StorageUnavailableError."""

    database: Database
    champion: Callable[[], Bundle | None]
    catalogue: Catalogue
    popularity: Popularity
    popular_days: int
    live: LiveState | None
    baskets: BasketTable

    def similar(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        """Items whose vectors point the same way (cosine).

        For an item that neither the model nor the live log tells anything of: what is popular in its
        category. Raises NotFoundError where the catalogue does not know it either.
        """
        bundle = self._bundle(now_us)
        found = None if bundle is None else similarity(bundle, item_id)
        if bundle is None or found is None:
            return self._popular_in_category(item_id, k, now_us)
        return self._ranked(bundle, found.scores, k, found.source)

    def following(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        """What most often came right after the item; for an item of which nothing is known as `similar`."""
        bundle = self._bundle(now_us)
        found = None if bundle is None else followed_by(bundle, item_id)
        if bundle is None or found is None:
            return self._popular_in_category(item_id, k, now_us)
        return self._ranked(bundle, found.scores, k, found.source)

    def _bundle(self, now_us: int) -> Bundle | None:
        """The champion with the live log as it stands now, for no visitor in particular."""
        bundle = self.champion()
        if bundle is None or self.live is None:
            return bundle
        return self.live.at_moment(bundle, None, (), now_us)

    def popular(self, days: int, category: str | None, k: int, now_us: int) -> list[RankedItem]:
        """The items that most users and sessions had an event of in the last `days`.

        Raises InputError where no item is in `category`.
        """
        with self.database.connect() as connection:
            snapshot = self.catalogue.at(connection, read_stamps(connection).items)
            if category is not None:
                snapshot.within(connection, frozenset([category]), "category")
        counts = self.popularity.counts(self.database, now_us, days, category)
        return self._shown(snapshot, counts, k, "popular")

    def trending(self, hours: int, k: int, now_us: int) -> list[RankedItem]:
        """The items that most users and sessions had an event of in the last `hours`."""
        snapshot = self._snapshot()
        counts = self.popularity.trending(self.database, now_us, hours)
        return self._shown(snapshot, counts, k, "trending")

    def bought_together(self, item_ids: Sequence[str], k: int, now_us: int) -> list[RankedItem]:
        """What was bought or carted together with `item_ids`, none of those among it.

        Where none of them was, as `similar` of the last. Raises NotFoundError where the catalogue does
        not know that one either.
        """
        found = self.baskets.at(now_us).together(item_ids)
        if not found:
            similar = self.similar(item_ids[-1], k + len(item_ids), now_us)
            others = [one for one in similar if one.item_id not in set(item_ids)][:k]
            return [one._replace(rank=rank) for rank, one in enumerate(others, 1)]
        snapshot = self._snapshot()
        if snapshot.stocked:  # a page's sessions may cart any text
            first = found[: LOOKED_AT * k]
            known = snapshot.look_up(self.database, [one for one, _ in first])
            found = [one for one in first if one[0] in known]
        return self._shown(snapshot, found, k, "bought_together")

    def _snapshot(self) -> ItemSnapshot:
        with self.database.connect() as connection:
            return self.catalogue.at(connection, read_stamps(connection).items)

    def _shown(
        self,
        snapshot: ItemSnapshot,
        counts: Iterable[tuple[str, float]],
        k: int,
        source: str,
    ) -> list[RankedItem]:
        """The first k of `counts` that may be shown."""
        shown = [(item_id, count) for item_id, count in counts if item_id not in snapshot.hidden]
        found = snapshot.look_up(self.database, [item_id for item_id, _ in shown[:k]])
        return [
            RankedItem(item_id, rank, float(count), source, found.get(item_id))
            for rank, (item_id, count) in enumerate(shown[:k], 1)
        ]

    def _popular_in_category(self, item_id: str, k: int, now_us: int) -> list[RankedItem]:
        with self.database.connect() as connection:
            item = item_rows.get_items(connection, [item_id]).get(item_id)
        if item is None:
            raise NotFoundError("item that the model or the catalogue knows", item_id)
        category = item.categories[0] if item.categories else None
        popular = self.popular(self.popular_days, category, k + 1, now_us)
        others = [one for one in popular if one.item_id != item_id][:k]
        return [one._replace(rank=rank) for rank, one in enumerate(others, 1)]

    def _ranked(self, bundle: Bundle, row: np.ndarray, k: int, source: str) -> list[RankedItem]:
        """The k best of a score for each item of the vocabulary, row (V,), which is changed."""
        with self.database.connect() as connection:
            snapshot = self.catalogue.at(connection, read_stamps(connection).items)
        row[snapshot.rows(bundle, ItemSet(snapshot.hidden, "hidden"))] = -np.inf
        chosen = [(bundle.vocabulary.item_id(int(i)), float(row[i])) for i in top_k(row, k)]
        found = snapshot.look_up(self.database, [item_id for item_id, _ in chosen])
        return [
            RankedItem(item_id, rank, score, source, found.get(item_id))
            for rank, (item_id, score) in enumerate(chosen, 1)
        ]
