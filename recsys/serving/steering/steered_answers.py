"""The answer of a scenario: its logic's candidates, its pins and promoted items, its titled rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from recsys.errors import StorageUnavailableError
from recsys.models.ranking import sources_of
from recsys.serving.answers import Answer, AnswerRow, Candidate, FilteredItem
from recsys.serving.context import RankingContext
from recsys.serving.explain import explain
from recsys.serving.filters import Filters
from recsys.serving.item_snapshot import EMPTY, ItemSet
from recsys.serving.kept_answers import place_of
from recsys.serving.recommender import Recommender
from recsys.serving.steering.exploration import EXPLORED
from recsys.serving.steering.logic_candidates import fallback_candidates, logic_candidates
from recsys.serving.steering.placement import PINNED, PROMOTED, Promotion, place
from recsys.serving.steering.reranking import FIXED, explored, reordered, widened
from recsys.serving.steering.titled_rows import RowPlan, planned_rows
from recsys.serving.top_k import CategoryCap, fallback_of, filtered_of, make_answer
from recsys.steering.scenario_spec import ScenarioSpec


def steered_answer(recommender: Recommender, context: RankingContext) -> Answer:
    """The answer of the request's scenario."""
    spec = spec_of(context)
    plans = planned_rows(recommender, context, spec)
    recommendation_id, rows = recommender.new_id(), None
    if plans is None:
        chosen = chosen_of(recommender, context, spec, recommendation_id)
    else:
        chosen, rows = _fill_rows(recommender, context, plans, recommendation_id)
    reasons = explain(recommender, context, chosen)
    answer = make_answer(recommender, context, chosen, reasons, recommendation_id)
    if spec.logic == "for_you" and rows is None:
        ranked = [one for one in chosen if one.source not in (*FIXED, EXPLORED)]
        return replace(answer, fallback=fallback_of(context, ranked))
    return replace(answer, fallback=None, rows=rows)


def spec_of(context: RankingContext) -> ScenarioSpec:
    """The scenario that the request names and that is stored."""
    spec = context.request.scenario_spec
    assert spec is not None
    return spec


def chosen_of(
    recommender: Recommender, context: RankingContext, spec: ScenarioSpec, recommendation_id: str
) -> list[Candidate]:
    """The list of one logic. The ranking of a visitor who comes back is kept, as without a scenario."""
    own = spec.logic == "for_you" and spec.rotation is None and spec.explore is None
    kept = place_of(context, recommender.ranking.recent) if own else None
    chosen = recommender.kept.find(kept)
    if chosen is not None:
        return chosen
    chosen = _placed(recommender, context, spec, recommendation_id)
    bundle = context.bundle
    if kept is not None and bundle is not None:
        ranked = {*sources_of(bundle), PINNED, PROMOTED} - {"popular"}
        if all(one.source in ranked for one in chosen):
            recommender.kept.keep(kept, chosen)
    return chosen


def _placed(
    recommender: Recommender, context: RankingContext, spec: ScenarioSpec, recommendation_id: str
) -> list[Candidate]:
    filters = context.filters
    ranked = _in_order(recommender, context, spec)
    pins = {pin.position: pin.item_id for pin in spec.pins if filters.keeps(pin.item_id)}
    promotion = None
    if spec.promote is not None and filters.promoted is not None:
        promoted = filters.promoted
        promotion = Promotion(
            spec.promote.share,
            lambda item_id: item_id in promoted.item_ids,
            _in_order(recommender, _within(context, promoted), spec),
        )
    cap = _category_cap(recommender, context)
    chosen = place(ranked, context.request.k, pins, promotion, cap)
    return explored(recommender, context, spec, chosen, ranked, recommendation_id)


def _in_order(
    recommender: Recommender, context: RankingContext, spec: ScenarioSpec
) -> Iterator[Candidate]:
    """What may be shown in the scenario's own order, lazily."""
    ranked = ranked_candidates(recommender, widened(context, spec), spec)
    return reordered(recommender, context, spec, ranked)


def ranked_candidates(
    recommender: Recommender, context: RankingContext, spec: ScenarioSpec
) -> Iterator[Candidate]:
    """What may be shown, best first and lazily: the logic's candidates, then the fallback's."""
    for one in logic_candidates(recommender, context, spec.logic):
        if context.filters.keeps(one.item_id):
            yield one
    for one in fallback_candidates(recommender, context, spec.fallback):
        if context.filters.keeps(one.item_id):
            yield one


def _within(context: RankingContext, items: ItemSet) -> RankingContext:
    filters = context.filters
    return replace(context, filters=replace(filters, allowed=(*filters.allowed, items)))


def _category_cap(recommender: Recommender, context: RankingContext) -> Callable[[str], bool]:
    """Whether an item may still be shown beside those before it, by `max_per_category`."""
    most = context.request.max_per_category
    if most is None:
        return lambda item_id: True
    cap = CategoryCap(most)

    def admits(item_id: str) -> bool:
        item = context.filters.snapshot.look_up(recommender.database, [item_id]).get(item_id)
        return cap.admits(item.categories if item else ())

    return admits


def _fill_rows(
    recommender: Recommender,
    context: RankingContext,
    plans: list[RowPlan],
    recommendation_id: str,
) -> tuple[list[Candidate], tuple[AnswerRow, ...]]:
    """The rows' items one after another, none of them twice; a row without any is left out."""
    chosen: list[Candidate] = []
    rows = []
    for plan in plans:
        shown = frozenset(one.item_id for one in chosen)
        filters = replace(context.filters, excluded=context.filters.excluded | shown)
        if plan.within is not None:
            filters = replace(filters, allowed=(*filters.allowed, plan.within))
        own = replace(context, request=plan.request, filters=filters)
        found = _placed(recommender, own, plan.spec, recommendation_id)
        if found:
            item_ids = tuple(one.item_id for one in found)
            rows.append(
                AnswerRow(plan.title, plan.spec.logic, item_ids, plan.about_item, plan.category)
            )
            chosen += found
    return chosen, tuple(rows)


def left_out(recommender: Recommender, context: RankingContext) -> list[FilteredItem]:
    """Which of the best k, if nothing were filtered, the scenario's and the request's filters leave out,
    and which pins are not shown; why, in words.
    """
    spec = spec_of(context)
    unfiltered = replace(
        context,
        request=replace(context.request, max_per_category=None),
        filters=Filters(EMPTY, frozenset(), (), context.filters.factors),
    )
    plain = replace(spec, pins=(), promote=None, explore=None, rows=())
    best = _placed(recommender, unfiltered, plain, "")
    gone = [
        (rank, one) for rank, one in enumerate(best, 1) if not context.filters.keeps(one.item_id)
    ]
    gone += [
        (pin.position, Candidate(pin.item_id, 0.0, PINNED))
        for pin in spec.pins
        if not context.filters.keeps(pin.item_id)
    ]
    try:
        return filtered_of(recommender, context, gone)
    except StorageUnavailableError:
        return []
