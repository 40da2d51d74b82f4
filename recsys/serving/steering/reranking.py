"""A scenario's candidates in another order, by value, diversity and rotation, and its exploration.

Legend: C candidates, K items shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from recsys.events.array_types import Float64Array
from recsys.models.ranking import item_vectors, owners_of, sources_of
from recsys.serving.answers import Candidate
from recsys.serving.context import RankingContext
from recsys.serving.recommender import Recommender
from recsys.serving.steering.business_value import Scoring, by_value, chances_of
from recsys.serving.steering.diversity import diversified
from recsys.serving.steering.exploration import (
    EXPLORED,
    POOL,
    dealt,
    drawn_places,
    most_uncertain,
    pools_of,
)
from recsys.serving.steering.placement import PINNED, PROMOTED
from recsys.steering.scenario_spec import Logic, ScenarioSpec

FIXED = (PINNED, PROMOTED)  # sources of items that stay where they are
COUNTED = ("popular", "trending", "latest")  # logics whose scores are no chances
BEYOND = 200  # candidates beyond those shown that are looked at
MOST_DIVERSE = 100  # places of a list that diversity chooses one by one
MOST_SUNK = 500  # more items than these sink below so many others at most


def widened(context: RankingContext, spec: ScenarioSpec | None) -> RankingContext:
    """The context to rank candidates by: of more of them, where the scenario orders them anew."""
    if spec is None or not (spec.diversity or spec.explore or context.scoring or context.sunk):
        return context
    wide = context.request.k + BEYOND + min(len(context.sunk), MOST_SUNK)
    return replace(context, request=replace(context.request, k=wide))


def reordered(
    recommender: Recommender,
    context: RankingContext,
    spec: ScenarioSpec,
    ranked: Iterator[Candidate],
) -> Iterator[Candidate]:
    """The candidates of `widened` in the scenario's order, each once: by value, then by diversity; those
    that sink come last.
    """
    if not (spec.diversity or context.scoring or context.sunk):
        yield from ranked
        return
    sunk, k = context.sunk, context.request.k
    best: dict[str, Candidate] = {}  # an item may come twice: from the first that has it
    for one in ranked:
        if context.filters.keeps(one.item_id):
            best.setdefault(one.item_id, one)
        if len(best) == k + BEYOND + min(len(sunk), MOST_SUNK):
            break
    window = list(best.values())
    if context.scoring is not None:
        window = _by_value(context, context.scoring, spec.logic, window)
    fresh = [one for one in window if one.item_id not in sunk]
    if spec.diversity and context.bundle is not None:
        rows = context.bundle.vocabulary.encode(one.item_id for one in fresh).astype(np.int64)
        vectors = item_vectors(context.bundle, rows)
        places = diversified(vectors, spec.diversity, min(k, MOST_DIVERSE))
        fresh = [fresh[place] for place in places]
    yield from fresh
    yield from (one for one in window if one.item_id in sunk)
    yield from ranked


def _by_value(
    context: RankingContext, scoring: Scoring, logic: Logic, window: list[Candidate]
) -> list[Candidate]:
    """What the logic gave by value, then what fills up, by value too."""
    if logic in COUNTED:
        own, ranked_by = frozenset[str]({logic}), frozenset[str]()
    else:
        learned = sources_of(context.bundle) if context.bundle else ()
        own = ranked_by = frozenset({"bought_together", *learned} - {"popular"})
    return by_value(window, scoring.values(window, chances_of(window, ranked_by)), own)


def explored(
    recommender: Recommender,
    context: RankingContext,
    spec: ScenarioSpec,
    chosen: list[Candidate],
    ranked: Iterator[Candidate],
    recommendation_id: str,
) -> list[Candidate]:
    """The chosen (K) with their propensities, some of them replaced by new or uncertain items.

    `ranked`: what would come after them. Pinned and promoted items stay. Under `max_per_category` an item
    stands in only for one of the same categories, so that the list keeps to it whatever is drawn.
    """
    if spec.explore is None:
        return chosen
    share = spec.explore.share
    tried = tried_items(recommender, context, chosen, ranked)
    positions = [at for at, one in enumerate(chosen) if one.source not in FIXED]
    fits = _fits(recommender, context, tried, chosen)
    pools = pools_of(dealt(recommendation_id, len(tried)), positions, fits)
    sizes = np.array([len(pools.get(at, ())) for at in range(len(chosen))], np.int64)
    drawn = drawn_places(recommendation_id, sizes, share).tolist()
    found = []
    for at, one in enumerate(chosen):
        if sizes[at] == 0:
            found.append(one._replace(propensity=1.0))
        elif drawn[at] < 0:
            found.append(one._replace(propensity=1 - share))
        else:
            shown, chance = tried[pools[at][drawn[at]]], share / len(pools[at])
            found.append(shown._replace(source=EXPLORED, propensity=chance))
    return found


def tried_items(
    recommender: Recommender,
    context: RankingContext,
    chosen: list[Candidate],
    ranked: Iterator[Candidate],
) -> list[Candidate]:
    """The items that are most worth a try: of the next candidates, and of the catalogue's newest."""
    out = {one.item_id for one in chosen} | context.sunk
    newest = context.filters.snapshot.newest(recommender.database)
    following = itertools.chain(
        itertools.islice(ranked, BEYOND), (Candidate(name, 0.0, "latest") for name in newest)
    )
    found: dict[str, Candidate] = {}
    for one in following:
        if one.item_id not in out and context.filters.keeps(one.item_id):
            found.setdefault(one.item_id, one)
    candidates = list(found.values())
    events = _events_of(recommender, context, candidates)
    return [candidates[place] for place in most_uncertain(events, POOL * len(chosen))]


def _events_of(
    recommender: Recommender, context: RankingContext, candidates: list[Candidate]
) -> Float64Array:
    """Users and sessions (C,) that had each candidate: in the training's data, or of late if those are more."""
    bundle = context.bundle
    if bundle is None:
        return np.zeros(len(candidates))
    rows = bundle.vocabulary.encode(one.item_id for one in candidates).astype(np.int64)
    recent = recommender.ranking.recent(bundle, context.now_us)
    known = owners_of(bundle, rows)
    if recent is None:
        return known
    lately = np.where(rows < len(recent), np.expm1(recent[np.minimum(rows, len(recent) - 1)]), 0)
    found: Float64Array = np.maximum(known, lately)
    return found


def _fits(
    recommender: Recommender,
    context: RankingContext,
    tried: list[Candidate],
    chosen: list[Candidate],
) -> Callable[[int, int], bool]:
    """Whether one of `tried` may stand in for one of `chosen`, both by their places."""
    if context.request.max_per_category is None:
        return lambda _, position: True
    names = [one.item_id for one in (*tried, *chosen)]
    items = context.filters.snapshot.look_up(recommender.database, names)
    within = [frozenset(items[name].categories) if name in items else frozenset() for name in names]
    return lambda one, position: within[one] <= within[len(tried) + position]
