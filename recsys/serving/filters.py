"""Filters: which items may be shown in an answer, and which are boosted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from recsys.config.exclude_seen import seen_types
from recsys.errors import SourceUnavailableError
from recsys.events.identity import Owner
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle
from recsys.models.catalogue_scan import Mask
from recsys.serving.answers import Request
from recsys.serving.item_snapshot import ItemSet, ItemSnapshot
from recsys.storage.engine.database import Connection
from recsys.storage.entities.history_rows import History
from recsys.storage.events_source import EventsSource


@dataclass(frozen=True)
class Filters:
    """Which items one answer may show."""

    snapshot: ItemSnapshot
    excluded: frozenset[str]
    allowed: tuple[ItemSet, ...]  # an item must be in each
    factors: tuple[tuple[ItemSet, float], ...] = ()  # boosted items, and by how much

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
        return "left out by the request" if item_id in self.excluded else "not what was asked for"

    def mask(self, bundle: Bundle) -> Mask:
        """The mask over a bundle's vocabulary rows."""
        allowed = None
        for one in self.allowed:
            inside = np.zeros(len(bundle.vocabulary), np.bool_)
            inside[self.snapshot.rows(bundle, one)] = True
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
) -> Filters:
    """The filters that the request asks for, with the items seen in its history."""
    excluded = set(request.exclude_items).union(request.shown_before)
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
    allowed += [snapshot.meeting(connection, condition) for condition in request.conditions]
    factors = tuple(
        (snapshot.meeting(connection, boost.condition), boost.factor) for boost in request.boosts
    )
    return Filters(snapshot, frozenset(excluded), tuple(allowed), factors)


def filters_without_database(request: Request, snapshot: ItemSnapshot) -> Filters:
    """The filters that need no database: seen items and metadata are left out."""
    excluded = frozenset(request.exclude_items).union(request.shown_before)
    allowed = (ItemSet(frozenset(request.candidates)),) if request.candidates else ()
    return Filters(snapshot, excluded, allowed)
