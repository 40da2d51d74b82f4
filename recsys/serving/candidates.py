"""The chain of candidates that fills an answer, and always does.

The version's ranking, with what lately followed the last item and is newer than the version sorted
in; then transitions of the last known item, then what is popular, then what is newest. An item takes
its place from the first of them that has it. Each candidate is (item id, score, source).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle
from recsys.models.ranking import LSTM
from recsys.serving.answers import Request
from recsys.serving.filters import Filters
from recsys.serving.followers import Followers, newcomers
from recsys.serving.history import encoded, past_read
from recsys.serving.item_snapshot import Shelf, look_up
from recsys.serving.popularity import LONGEST, Popularity
from recsys.serving.version_ranking import VersionRanking
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_rows import HistoryEvent

LOOK_AHEAD = 200  # items whose categories are fetched together


@dataclass(frozen=True)
class Basis:
    """What an answer rests on."""

    request: Request
    bundle: Bundle | None
    past: list[HistoryEvent]  # oldest first
    filters: Filters
    followers: Followers
    now_us: int


@dataclass(frozen=True)
class Chain:
    """Where candidates come from."""

    database: Database
    popularity: Popularity
    ranking: VersionRanking

    def fill(self, basis: Basis) -> list[tuple[str, float, str]]:
        """The answer's candidates, each item once; fewer than `request.k` where there are no more."""
        request, filters = basis.request, basis.filters
        chosen: dict[str, tuple[str, float, str]] = {}
        room: dict[str, int] = {}
        chain = self._candidates(basis)
        if request.max_per_category is not None:
            chain = self._held(chain, filters.shelf)
        for item_id, score, source in chain:
            if item_id in chosen or not filters.keeps(item_id):
                continue
            if request.max_per_category is not None:
                found = filters.shelf.known([item_id]).get(item_id)
                categories = found.categories if found else []
                if any(room.get(one, 0) >= request.max_per_category for one in categories):
                    continue
                for one in categories:
                    room[one] = room.get(one, 0) + 1
            chosen[item_id] = (item_id, score, source)
            if len(chosen) == request.k:
                break
        return list(chosen.values())

    def _held(
        self, chain: Iterator[tuple[str, float, str]], shelf: Shelf
    ) -> Iterator[tuple[str, float, str]]:
        """The chain as it is, the metadata of its items fetched some hundred at a time."""
        while part := list(itertools.islice(chain, LOOK_AHEAD)):
            look_up(self.database, shelf, [item_id for item_id, _, _ in part])
            yield from part

    def _candidates(self, basis: Basis) -> Iterator[tuple[str, float, str]]:
        request, bundle, past, filters = basis.request, basis.bundle, basis.past, basis.filters
        new = newcomers(bundle, past, basis.followers)
        history = encoded(bundle, past) if bundle is not None and past else None
        if bundle is not None and history is not None and (history[0] >= FIRST_ITEM).any():
            ranked = self.ranking.ranked(bundle, history, past, request.k, filters, basis.now_us)
            # Both are shares of what comes next, so they may be compared.
            yield from heapq.merge(ranked, new, key=lambda found: -found[1])
            yield from _transitions(bundle, history)
        else:
            yield from new
        choosy = filters.allowed or request.max_per_category is not None
        yield from self.popularity.chain(
            self.database,
            bundle,
            basis.now_us,
            request.categories,
            LONGEST if choosy else request.k + len(filters.excluded),
        )
        # What was asked for and nothing above knows still belongs into the answer.
        asked: Sequence[str] = request.candidates
        if filters.allowed and not asked:
            asked = sorted(frozenset.intersection(*filters.allowed))
        for item_id in asked:
            yield item_id, 0.0, "latest"


def _transitions(bundle: Bundle, history: Histories) -> Iterator[tuple[str, float, str]]:
    """What most often came right after the last item of the history that is known."""
    known = history[0][history[0] >= FIRST_ITEM]
    items, votes = bundle.rankers["transitions"].votes(known)
    for place in np.argsort(-votes, kind="stable"):
        if items[place] >= FIRST_ITEM and items[place] != known[-1]:
            yield (
                bundle.vocabulary.item_id(int(items[place])),
                float(votes[place]),
                "transitions",
            )


def fallback_of(
    basis: Basis, items: list[tuple[str, float, str]], degraded: str | None
) -> str | None:
    """Which of FALLBACKS says why the version's ranking did not give every item, or None."""
    bundle, past = basis.bundle, basis.past
    if bundle is None:
        return "database" if degraded and not degraded.startswith("no model") else "no_model"
    if degraded:
        return "database"
    if all(source in (LSTM, *bundle.rankers) and source != "popular" for _, _, source in items):
        return None
    if not past:
        return "no_history"
    known = any(event.item_id in bundle.vocabulary for event in past_read(bundle, past))
    return "too_few" if known else "unknown_items"
