"""Titled rows of a scenario: what each is about, its title, and what it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from recsys.errors import InputError, StorageUnavailableError
from recsys.serving.answers import Request
from recsys.serving.context import RankingContext
from recsys.serving.item_snapshot import ItemSet
from recsys.serving.popularity import LONGEST
from recsys.serving.recommender import Recommender
from recsys.serving.steering.logic_candidates import subjects
from recsys.steering.scenario_spec import PLACEHOLDERS, Row, ScenarioSpec

LOOKED_AT = 50  # newest events whose items' categories count
FADE = 0.9  # what an event counts, of what the one after it counts
VIEWED = Row("because_you_viewed", "Because you viewed {item}")
CATEGORIES = Row("top_categories", "{category} for you", rows=3)


@dataclass(frozen=True)
class RowPlan:
    """A row that is to be filled."""

    title: str
    spec: ScenarioSpec  # of one logic
    request: Request
    within: ItemSet | None = None  # the category's items
    about_item: str | None = None
    category: str | None = None


def planned_rows(
    recommender: Recommender, context: RankingContext, spec: ScenarioSpec
) -> list[RowPlan] | None:
    """The rows of a scenario; None where it is one list without a title."""
    k = context.request.k
    if spec.rows:
        rows = spec.rows
    elif spec.logic == "because_you_viewed":
        rows = (replace(VIEWED, k=k),)
    elif spec.logic == "top_categories":
        rows = (replace(CATEGORIES, k=k),)
    else:
        return None
    most = k if "k" not in context.request.left_open else None  # a request may ask for less
    plans: list[RowPlan] = []
    for row in rows:
        row = row if most is None else replace(row, k=min(row.k, most))
        plans += _plans_of(recommender, context, spec, row)
    return plans


def _plans_of(
    recommender: Recommender, context: RankingContext, spec: ScenarioSpec, row: Row
) -> Iterator[RowPlan]:
    own = replace(spec, logic=row.logic, k=row.k, rows=())
    request = replace(context.request, k=row.k)
    if row.logic == "because_you_viewed":
        own = replace(own, fallback="none")  # under this title, nothing else has a place
        for item_id in _last_viewed(context)[: row.rows]:
            title = row.title.replace("{item}", _title_of(recommender, context, item_id))
            asked = replace(request, for_items=(item_id,))
            yield RowPlan(title, own, asked, about_item=item_id)
    elif row.logic == "top_categories":
        for category, items in _top_categories(recommender, context, row.rows):
            title = row.title.replace("{category}", category)
            asked = replace(request, categories=frozenset({category}))
            yield RowPlan(title, own, asked, items, category=category)
    else:
        named = subjects(context) if "{item}" in PLACEHOLDERS.get(row.logic, ()) else ()
        about = named[-1] if named else None
        title = row.title
        if "{item}" in title:
            if about is None:  # nobody can say what it is about
                return
            own = replace(own, fallback="none")
            title = title.replace("{item}", _title_of(recommender, context, about))
        yield RowPlan(title, own, request, about_item=about)


def _last_viewed(context: RankingContext) -> list[str]:
    """The items of the history, the newest first, each once."""
    return list(dict.fromkeys(event.item_id for event in reversed(context.past)))


def _title_of(recommender: Recommender, context: RankingContext, item_id: str) -> str:
    item = context.filters.snapshot.look_up(recommender.database, [item_id]).get(item_id)
    return item_id if item is None or item.title is None else item.title


def _top_categories(
    recommender: Recommender, context: RankingContext, count: int
) -> list[tuple[str, ItemSet]]:
    """The categories of what the visitor did last, newer events counting more; of a visitor without a
    history, those of what is popular.
    """
    item_ids = [event.item_id for event in context.past[-LOOKED_AT:]][::-1]
    if not item_ids:
        days = recommender.settings.serving.popular_days
        try:
            counts = recommender.popularity.counts(recommender.database, context.now_us, days, None)
        except StorageUnavailableError:
            return []
        item_ids = [item_id for item_id, _ in counts[: min(LOOKED_AT, LONGEST)]]
    snapshot = context.filters.snapshot
    items = snapshot.look_up(recommender.database, list(dict.fromkeys(item_ids)))
    weights: dict[str, float] = {}
    for at, item_id in enumerate(item_ids):
        for category in items[item_id].categories if item_id in items else ():
            weights[category] = weights.get(category, 0.0) + FADE**at
    best = sorted(weights, key=lambda one: (-weights[one], one))[:count]
    try:
        with recommender.database.read() as connection:
            return [(one, snapshot.within(connection, frozenset({one}))) for one in best]
    except (StorageUnavailableError, InputError):  # a category may have gone a moment ago
        return []
