"""Filters: which items may be shown in an answer, and which are boosted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from recsys.config.exclude_seen import seen_types
from recsys.errors import InputError, SourceUnavailableError
from recsys.events.identity import Owner
from recsys.events.times import MINUTE_US, from_us
from recsys.events.vocabulary import FIRST_ITEM
from recsys.ingest.row_conditions import Condition
from recsys.models.bundle import Bundle
from recsys.models.catalogue_scan import Mask
from recsys.serving.answers import Request
from recsys.serving.item_columns import CREATED
from recsys.serving.item_snapshot import ItemSet, ItemSnapshot
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.expression import Expression
from recsys.steering.expressions.reading import ItemCondition
from recsys.storage.engine.database import Connection
from recsys.storage.entities import attribute_rows
from recsys.storage.entities.history_rows import History
from recsys.storage.entities.item_values import values_of
from recsys.storage.events_source import EventsSource


@dataclass(frozen=True)
class Filters:
    """Which items one answer may show."""

    snapshot: ItemSnapshot
    excluded: frozenset[str]
    allowed: tuple[ItemSet, ...]  # an item must be in each
    factors: tuple[tuple[ItemSet, float], ...] = ()  # boosted items, and by how much
    promoted: ItemSet | None = None  # what a scenario gives a share of the positions

    def keeps(self, item_id: str) -> bool:
        """Whether an item may be shown."""
        if item_id in self.excluded or item_id in self.snapshot.hidden:
            return False
        allowed = self.allowed
        return not allowed or all(item_id in one.item_ids for one in allowed)

    def why(self, item_id: str, seen: Mapping[str, str]) -> str:
        """Why an item is left out, in words; `seen`: item id -> type of an event of it."""
        if item_id in self.snapshot.hidden:
            return "not available"
        if item_id in seen:
            return f"already seen ({seen[item_id]})"
        if item_id in self.excluded:
            return "left out by the request"
        missed = next(
            (one.asked for one in self.allowed if one.asked and item_id not in one.item_ids), None
        )
        return "not what was asked for" if missed is None else f"does not meet {missed}"

    def mask(self, bundle: Bundle) -> Mask:
        """The mask over a bundle's vocabulary rows."""
        allowed = None
        for one in self.allowed:
            inside = self.snapshot.inside(bundle, one)
            allowed = inside if allowed is None else allowed & inside
        excluded_rows = self.snapshot.rows(bundle, ItemSet(self.snapshot.hidden, "hidden"))
        if self.excluded:
            encoded = bundle.vocabulary.encode(self.excluded).astype(np.int64)
            excluded_rows = np.concatenate((excluded_rows, encoded[encoded >= FIRST_ITEM]))
        return Mask(allowed, excluded_rows)

    def row_factors(self, bundle: Bundle) -> np.ndarray | None:
        """What each row's score is multiplied by; None where there is no boost."""
        if not self.factors:
            return None
        found = np.ones(len(bundle.vocabulary), np.float32)
        for meeting, factor in self.factors:
            found[self.snapshot.rows(bundle, meeting)] *= np.float32(factor)
        return found


def filters_of(
    connection: Connection,
    request: Request,
    history: History,
    snapshot: ItemSnapshot,
    source: EventsSource,
    now_us: int,
) -> Filters:
    """The filters that the request asks for, with the items seen in its history."""
    excluded = set(request.exclude_items).union(request.shown_before, request.for_items)
    types = seen_types(request.exclude_seen)
    if types is None or types:
        excluded.update(
            event.item_id for event in history.events if types is None or event.event_type in types
        )
        if not history.complete:
            with suppress(SourceUnavailableError):  # what was read a moment ago is left out
                owner = Owner(request.user_id, request.session_id)
                excluded |= source.seen_items(connection, owner, types)
    allowed = [ItemSet(frozenset(request.candidates))] if request.candidates else []
    if request.categories:
        allowed.append(snapshot.within(connection, request.categories))
    meeting = _conditions_met(connection, request, history, snapshot, now_us)
    allowed += [meeting(condition) for condition in request.conditions]
    factors = tuple((meeting(boost.condition), boost.factor) for boost in request.boosts)
    promoted = None
    if request.scenario_spec is not None:

        def still_meeting(condition: ItemCondition) -> ItemSet:
            """None where a scenario's rule names what no item has any more."""
            try:
                return meeting(condition)
            except InputError:
                return ItemSet(frozenset())

        rules = request.scenario_rules
        allowed += [still_meeting(one) for one in rules.conditions]
        factors += tuple((still_meeting(one.condition), one.factor) for one in rules.boosts)
        promoted = None if rules.promoted is None else still_meeting(rules.promoted)
    return Filters(snapshot, frozenset(excluded), tuple(allowed), factors, promoted)


def _conditions_met(
    connection: Connection,
    request: Request,
    history: History,
    snapshot: ItemSnapshot,
    now_us: int,
) -> Callable[[ItemCondition], ItemSet]:
    """What gives the items that meet a condition of the request."""
    expressions, bindings = request.expressions, None
    if expressions:
        bindings = bindings_of(connection, expressions, request.user_id, history, snapshot, now_us)

    def meeting(condition: ItemCondition) -> ItemSet:
        if isinstance(condition, Expression) and bindings is not None:
            return snapshot.meeting_expression(connection, condition, bindings)
        assert isinstance(condition, Condition)
        return snapshot.meeting(connection, condition)

    return meeting


def bindings_of(
    connection: Connection,
    expressions: Iterable[Expression],
    user_id: str | None,
    history: History,
    snapshot: ItemSnapshot,
    now_us: int,
) -> Bindings:
    """What the names of `expressions` stand for; of the user and the last item as far as any names them.

    `now()` is cut to the minute, so that what rests on it is kept for one.
    """
    user: Mapping[str, object] = {}
    last: Mapping[str, object] = {}
    if user_id is not None and any(one.user_names for one in expressions):
        found = attribute_rows.get_attributes(connection, user_id)
        user = found.attributes if found is not None else {}
    if history.events and any(one.last_names for one in expressions):
        item_id = history.events[-1].item_id
        item = snapshot.items(connection, [item_id]).get(item_id)
        values = {"item_id": item_id} if item is None else values_of(item).values
        last = values if item is None else {**values, CREATED: from_us(item.created_at_us)}
    return Bindings(now_us - now_us % MINUTE_US, user, last)


def filters_without_database(request: Request, snapshot: ItemSnapshot) -> Filters:
    """The filters that need no database: seen items and metadata are left out."""
    excluded = request.exclude_items.union(request.shown_before, request.for_items)
    allowed = (ItemSet(frozenset(request.candidates)),) if request.candidates else ()
    return Filters(snapshot, excluded, allowed)
