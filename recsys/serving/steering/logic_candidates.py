"""The candidates of each logic of a scenario, best first, and what a list is filled up with.

Legend: V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from recsys.errors import StorageUnavailableError
from recsys.models.bundle import Bundle
from recsys.models.ranking import top_k
from recsys.serving.answers import Candidate
from recsys.serving.candidates import (
    counted_candidates,
    filling_candidates,
    in_catalogue,
    newest_candidates,
    personal_candidates,
    popular_candidates,
)
from recsys.serving.context import RankingContext
from recsys.serving.item_lists import ItemScores, followed_by, similarity
from recsys.serving.popularity import LONGEST
from recsys.serving.recommender import Recommender
from recsys.steering.scenario_spec import Fallback, Logic

TRENDING_HOURS = 24
SPARE = 200  # items that are scored beyond those asked for


def logic_candidates(
    recommender: Recommender, context: RankingContext, logic: Logic
) -> Iterator[Candidate]:
    """Candidates, best first and lazily; an item may come twice, and some may not be shown."""
    request = context.request
    if logic in ("for_you", "top_categories"):
        yield from personal_candidates(recommender, context)
    elif logic in ("similar", "because_you_viewed"):
        yield from _scored(context, similarity)
    elif logic == "next":
        yield from _scored(context, followed_by)
    elif logic == "bought_together":
        yield from _bought_together(recommender, context)
    elif logic == "popular":
        yield from _boosted(
            context, popular_candidates(recommender, context.now_us, request.categories)
        )
    elif logic == "trending":
        yield from _boosted(context, trending_candidates(recommender, context))
    else:
        newest = list(newest_candidates(recommender, LONGEST))
        # The newest has the score 1, so that boosts have something to multiply.
        scored = (one._replace(score=1 - at / len(newest)) for at, one in enumerate(newest))
        yield from _boosted(context, scored)


def fallback_candidates(
    recommender: Recommender, context: RankingContext, fallback: Fallback
) -> Iterator[Candidate]:
    """What a list is filled up with where its logic gives too little."""
    if fallback == "none":
        return
    if fallback == "latest":
        yield from newest_candidates(recommender, LONGEST)
        return
    if fallback == "trending":
        yield from trending_candidates(recommender, context)
    yield from filling_candidates(recommender, context)


def trending_candidates(recommender: Recommender, context: RankingContext) -> Iterator[Candidate]:
    """What most users and sessions had an event of in the last TRENDING_HOURS."""
    popularity, database, now_us = recommender.popularity, recommender.database, context.now_us

    def count(category: str | None) -> list[tuple[str, int]]:
        if category is None:
            return popularity.trending(database, now_us, TRENDING_HOURS)
        return popularity.counts(database, now_us, TRENDING_HOURS // 24, category)

    yield from counted_candidates(count, context.request.categories, "trending")


def _bought_together(recommender: Recommender, context: RankingContext) -> Iterator[Candidate]:
    """What stood in baskets with the list's subjects; where they stood in none, what is like them."""
    try:
        found = recommender.item_lists.baskets.at(context.now_us).together(subjects(context))
    except StorageUnavailableError:
        found = []
    if not found:
        yield from _scored(context, similarity)
        return
    together = (Candidate(item_id, score, "bought_together") for item_id, score in found)
    known = in_catalogue(recommender, context.filters.snapshot, together)
    yield from _boosted(context, known)


def subjects(context: RankingContext) -> tuple[str, ...]:
    """What a list of similar or following items is about: the page's items, else the last of the history.

    Of what the catalogue does not hold, a page is told nothing.
    """
    request, past = context.request, context.past
    found = request.for_items or ((past[-1].item_id,) if past else ())
    snapshot = context.filters.snapshot
    if request.from_page and snapshot.stocked:
        return tuple(one for one in found if one in snapshot.known(found))
    return found


def _scored(
    context: RankingContext, score: Callable[[Bundle, str], ItemScores | None]
) -> Iterator[Candidate]:
    """The items with the highest mean score over the list's subjects."""
    bundle = context.bundle
    if bundle is None:
        return
    about = subjects(context)
    found = [one for item_id in about if (one := score(bundle, item_id)) is not None]
    if not found:
        return
    scores = _mean([one.scores for one in found])
    factors = context.filters.row_factors(bundle)
    if factors is not None:
        scores = np.where(scores > 0, scores * factors, scores)
    context.filters.mask(bundle).apply(scores)
    known = [item_id for item_id in about if item_id in bundle.vocabulary]
    scores[[bundle.vocabulary.index(item_id) for item_id in known]] = -np.inf
    for row in top_k(scores, context.request.k + SPARE):
        if np.isfinite(scores[row]):
            yield Candidate(
                bundle.vocabulary.item_id(int(row)), float(scores[row]), found[0].source
            )


def _mean(scores: Sequence[np.ndarray]) -> np.ndarray:
    """(V,): the mean of several; what one of them knows nothing of adds 0."""
    if len(scores) == 1:
        return scores[0]
    whole = np.stack(scores)
    unknown = ~np.isfinite(whole)
    mean: np.ndarray = np.where(unknown, np.float32(0), whole).mean(axis=0)
    mean[unknown.all(axis=0)] = -np.inf
    return mean


def _boosted(context: RankingContext, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """The candidates in the order of their scores times the factors of the rules they meet."""
    factors = context.filters.factors
    if not factors:
        yield from candidates
        return

    def worth(one: Candidate) -> float:
        score = one.score
        for meeting, factor in factors:
            if one.item_id in meeting.item_ids:
                score *= factor
        return score

    scored = [one._replace(score=worth(one)) for one in candidates]
    yield from sorted(scored, key=lambda one: -one.score)
