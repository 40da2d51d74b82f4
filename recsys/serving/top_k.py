"""The best k candidates that may be shown: the answer they make, and what the filters left out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from recsys.config.exclude_seen import seen_types
from recsys.models.ranking import sources_of
from recsys.serving.answers import (
    Answer,
    Candidate,
    FilteredItem,
    RankedItem,
    Reason,
    Request,
    SeenLeftOut,
)
from recsys.serving.candidates import rank_candidates
from recsys.serving.context import NO_MODEL, RankingContext, stored_context
from recsys.serving.filters import Filters
from recsys.serving.history import past_read
from recsys.serving.item_snapshot import EMPTY
from recsys.serving.recommender import Recommender
from recsys.serving.steering.exploration import EXPLORED

LOOK_AHEAD = 200  # candidates whose categories are fetched together


class CategoryCap:
    """At most so many items of each category in one list, as they are chosen."""

    def __init__(self, most: int | None) -> None:
        """`most`: None for as many as there are."""
        self._most = most
        self._taken: Counter[str] = Counter()  # items chosen of each category

    def admits(self, categories: Collection[str]) -> bool:
        """Whether an item of these categories may still be chosen; it counts as chosen then.

        >>> cap = CategoryCap(1)
        >>> cap.admits(["tea", "cups"]), cap.admits(["cups"]), cap.admits(["tables"])
        (True, False, True)
        """
        if self._most is None:
            return True
        if any(self._taken[one] >= self._most for one in categories):
            return False
        self._taken.update(categories)
        return True


def take_top_k(
    recommender: Recommender, context: RankingContext, candidates: Iterator[Candidate]
) -> list[Candidate]:
    """The first k that the filters keep, each item once; fewer where there are no more."""
    request, filters = context.request, context.filters
    most = request.max_per_category
    if most is not None:
        candidates = _with_metadata(recommender, context, candidates)
    cap = CategoryCap(most)
    chosen: dict[str, Candidate] = {}
    for candidate in candidates:
        item_id = candidate.item_id
        if item_id in chosen or not filters.keeps(item_id):
            continue
        if most is not None:
            item = filters.snapshot.known([item_id]).get(item_id)
            if not cap.admits(item.categories if item else ()):
                continue
        chosen[item_id] = candidate
        if len(chosen) == request.k:
            break
    return list(chosen.values())


def _with_metadata(
    recommender: Recommender, context: RankingContext, candidates: Iterator[Candidate]
) -> Iterator[Candidate]:
    """The candidates as they are, the metadata of their items fetched LOOK_AHEAD at a time."""
    while part := list(itertools.islice(candidates, LOOK_AHEAD)):
        context.filters.snapshot.look_up(recommender.database, [one.item_id for one in part])
        yield from part


def make_answer(
    recommender: Recommender,
    context: RankingContext,
    chosen: list[Candidate],
    reasons: Mapping[str, tuple[Reason, ...]] | None,
    recommendation_id: str,
) -> Answer:
    """The answer of the chosen candidates, with metadata, under its id."""
    request, bundle, past = context.request, context.bundle, context.past
    items = context.filters.snapshot.look_up(recommender.database, [one.item_id for one in chosen])
    return Answer(
        recommendation_id=recommendation_id,
        user_id=request.user_id,
        session_id=request.session_id,
        model_version=bundle.version if bundle else None,
        generated_at_us=context.now_us,
        sequence_length=len(past),
        last_event_id=past[-1].event_id if past else None,
        degraded=context.degraded or context.note,
        items=[
            RankedItem(
                item_id,
                rank,
                score,
                source,
                items.get(item_id),
                None if reasons is None else reasons.get(item_id, ()),
                propensity,
            )
            for rank, (item_id, score, source, propensity) in enumerate(
                chosen, 1 + len(request.shown_before)
            )
        ],
        arm=context.model.arm,
        fallback=fallback_of(context, chosen),
        scenario=request.scenario,
        scenario_version=request.scenario_version,
        page_of=request.page_of,
        seen=seen_left_out(context) if request.explain else None,
    )


def seen_left_out(context: RankingContext) -> SeenLeftOut:
    """Which items the answer leaves out because they were seen, and why."""
    request, bundle = context.request, context.bundle
    learned = bundle.facts.seen if bundle is not None and request.learned_seen else None
    return SeenLeftOut(request.exclude_seen, None if learned is None else learned.said())


def fallback_of(context: RankingContext, chosen: Iterable[Candidate]) -> str | None:
    """Which of FALLBACKS says why the version's ranking did not give every item, or None."""
    bundle, past = context.bundle, context.past
    if bundle is None:
        return "no_model" if context.degraded in (None, NO_MODEL) else "database"
    if context.degraded:
        return "database"
    ranked = {*sources_of(bundle), EXPLORED} - {"popular"}
    if all(one.source in ranked for one in chosen):
        return None
    if not past:
        return "no_history"
    vocabulary = bundle.vocabulary if bundle.live is None else bundle.live.vocabulary.base
    known = any(event.item_id in vocabulary for event in past_read(bundle, past))
    return "too_few" if known else "unknown_items"


def filtered_items(recommender: Recommender, request: Request, now_us: int) -> list[FilteredItem]:
    """Which of the best k items, if nothing were filtered, the filters of `request` leave out.

    Raises StorageUnavailableError.
    """
    stamps = recommender.stamps()
    assigned = recommender.assigned(request, stamps)
    request = assigned.request
    context = stored_context(
        recommender, request, recommender.choose_model(assigned), now_us, stamps
    )
    filters = context.filters
    unfiltered = replace(
        context,
        request=replace(request, max_per_category=None),
        filters=Filters(EMPTY, frozenset(), (), filters.factors),
    )
    best = take_top_k(recommender, unfiltered, rank_candidates(recommender, unfiltered))
    gone = [(rank, one) for rank, one in enumerate(best, 1) if not filters.keeps(one.item_id)]
    return filtered_of(recommender, context, gone)


def filtered_of(
    recommender: Recommender, context: RankingContext, gone: Iterable[tuple[int, Candidate]]
) -> list[FilteredItem]:
    """Why the filters leave out each of `gone`, which stand beside the ranks they would have."""
    filters = context.filters
    gone = list(gone)
    items = filters.snapshot.look_up(recommender.database, [one.item_id for _, one in gone])
    types = seen_types(context.request.exclude_seen)
    seen = {
        event.item_id: event.event_type
        for event in context.past
        if types is None or event.event_type in types
    }
    return [
        FilteredItem(
            one.item_id, rank, one.source, filters.why(one.item_id, seen), items.get(one.item_id)
        )
        for rank, one in gone
    ]
