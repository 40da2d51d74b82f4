"""The candidates of an answer, best first, from a chain that does not end before the answer is full.

The version's ranking, with what lately followed the last item and is newer than the version sorted
in; then transitions of the last known item, then what is popular, then what is newest. An item takes
its place from the first of them that has it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from recsys.errors import StorageUnavailableError
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle
from recsys.models.ranking import votes_of
from recsys.serving.answers import Candidate
from recsys.serving.context import RankingContext
from recsys.serving.item_snapshot import LOOK_AHEAD, ItemSnapshot
from recsys.serving.popularity import LONGEST, Followers
from recsys.serving.recommender import Recommender
from recsys.storage.entities import item_rows
from recsys.storage.entities.history_rows import HistoryEvent

LOOK_BACK = 100  # events of an item in the live log that are looked at for what followed it


def rank_candidates(recommender: Recommender, context: RankingContext) -> Iterator[Candidate]:
    """Candidates, best first and lazily; an item may come twice, and some may not be shown."""
    yield from personal_candidates(recommender, context)
    yield from filling_candidates(recommender, context)


def personal_candidates(recommender: Recommender, context: RankingContext) -> Iterator[Candidate]:
    """What the history says, best first; nothing where it says nothing."""
    request, bundle, filters = context.request, context.bundle, context.filters
    new: list[Candidate] = []
    if bundle is None or bundle.live is None or bundle.live.events == 0:
        new = new_item_candidates(bundle, context.past, context.followers)
    if bundle is not None and context.history is not None and _is_known(bundle, context.history):
        ranked = recommender.ranking.ranked(
            bundle, context.history, request.k, filters, context.now_us
        )
        # Both are shares of what comes next, so they may be compared.
        yield from heapq.merge(ranked, new, key=lambda one: -one.score) if new else ranked
        yield from transition_candidates(bundle, context.history)
    else:
        yield from new


def filling_candidates(recommender: Recommender, context: RankingContext) -> Iterator[Candidate]:
    """What an answer is filled up with: what is popular, then what is newest."""
    request, bundle, filters = context.request, context.bundle, context.filters
    yield from popular_candidates(recommender, context.now_us, request.categories)
    if bundle is not None:
        yield from in_catalogue(recommender, filters.snapshot, learned_popular(bundle))
    filtered = filters.allowed or request.max_per_category is not None
    yield from newest_candidates(
        recommender, LONGEST if filtered else min(request.k + len(filters.excluded), LONGEST)
    )
    # What was asked for and nothing above knows still belongs into the answer.
    asked: Sequence[str] = request.candidates
    if filters.allowed and not asked:
        first, *others = sorted((one.item_ids for one in filters.allowed), key=len)
        asked = sorted(one for one in first if all(one in other for other in others))
    for item_id in asked:
        yield Candidate(item_id, 0.0, "latest")


def new_item_candidates(
    bundle: Bundle | None, past: list[HistoryEvent], followers: Followers
) -> list[Candidate]:
    """What lately followed the last item, where the model knows that item or what follows not."""
    if not past:
        return []
    last = past[-1].item_id
    unknown = bundle is None or last not in bundle.vocabulary
    return [
        Candidate(item_id, share, "transitions")
        for item_id, share in followers.get(last, ())
        if unknown or (bundle is not None and item_id not in bundle.vocabulary)
    ]


def transition_candidates(bundle: Bundle, history: Histories) -> Iterator[Candidate]:
    """What most often came right after the last item of the history that is known."""
    known = history[0][history[0] >= FIRST_ITEM]
    items, votes = votes_of(bundle, known, ["transitions"])["transitions"]
    for place in np.argsort(-votes, kind="stable"):
        if items[place] >= FIRST_ITEM and items[place] != known[-1]:
            item_id = bundle.vocabulary.item_id(int(items[place]))
            yield Candidate(item_id, float(votes[place]), "transitions")


def popular_candidates(
    recommender: Recommender, now_us: int, categories: Collection[str]
) -> Iterator[Candidate]:
    """What is popular lately, in each of `categories` or overall."""
    days = recommender.settings.serving.popular_days

    def count(category: str | None) -> list[tuple[str, int]]:
        return recommender.popularity.counts(recommender.database, now_us, days, category)

    yield from counted_candidates(count, categories, "popular")


def counted_candidates(
    count: Callable[[str | None], list[tuple[str, int]]], categories: Collection[str], source: str
) -> Iterator[Candidate]:
    """What `count` gives of each of `categories`, or overall; nothing while the database is away."""
    within: list[str | None] = [*sorted(categories)] or [None]
    for category in within:
        try:
            counts = count(category)
        except StorageUnavailableError:
            counts = []
        for item_id, events in counts:
            yield Candidate(item_id, float(events), source)


def learned_popular(bundle: Bundle) -> Iterator[Candidate]:
    """What is popular in the model's data."""
    items, votes = bundle.rankers["popular"].votes(bundle.vocabulary.encode([]))
    for place in (-votes).argsort(kind="stable"):
        item_id = bundle.vocabulary.item_id(int(items[place]))
        yield Candidate(item_id, float(votes[place]), "popular")


def in_catalogue(
    recommender: Recommender, snapshot: ItemSnapshot, candidates: Iterator[Candidate]
) -> Iterator[Candidate]:
    """The candidates that the catalogue holds, where there is one: any text can be posted as an item.

    All of them while the database is away.
    """
    if not snapshot.stocked:
        yield from candidates
        return
    while part := list(itertools.islice(candidates, LOOK_AHEAD)):
        names = [one.item_id for one in part]
        found = snapshot.look_up(recommender.database, names)
        whole = snapshot.holds(names)
        yield from (one for one in part if not whole or one.item_id in found)


def newest_candidates(recommender: Recommender, count: int) -> Iterator[Candidate]:
    """The `count` items that were added last; none while the database is away."""
    try:
        with recommender.database.connect() as connection:
            newest = item_rows.latest_items(connection, count)
    except StorageUnavailableError:
        return
    for item_id in newest:
        yield Candidate(item_id, 0.0, "latest")


def _is_known(bundle: Bundle, history: Histories) -> bool:
    """Whether the version knows any item of one history, or others did something with it since."""
    rows, live = history[0], bundle.live
    if live is None:
        return bool((rows >= FIRST_ITEM).any())
    known = len(live.vocabulary.base)
    if ((rows >= FIRST_ITEM) & (rows < known)).any():
        return True
    new = rows[rows >= known]
    if len(new) == 0:
        return False
    return (
        bool(live.view.vectors(new.astype(np.int64)).any())
        or len(live.steps_after(new[-1:], 1, LOOK_BACK)[0]) > 0
    )
