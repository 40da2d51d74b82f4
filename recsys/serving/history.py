"""The past events of a user or session: stored ones, merged ids' among them, then the request's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from recsys.errors import SourceUnavailableError
from recsys.events.fields import Event
from recsys.events.identity import Owner
from recsys.events.sequences import Histories
from recsys.models.bundle import Bundle
from recsys.models.ranking import encode_history
from recsys.serving.answers import Request
from recsys.serving.byte_cache import ByteCache
from recsys.storage.engine.database import Connection
from recsys.storage.entities import history_rows
from recsys.storage.entities.history_rows import History, HistoryEvent
from recsys.storage.events_source import EventsSource

EXTRA_HISTORY = 50  # events read beyond the model's length, of types that it does not read
MERGED_BYTES = 8 * 2**20  # of merged ids that are kept


class MergedKeys:
    """Keys of the users and sessions merged into each user, kept until any merge happens."""

    def __init__(self) -> None:
        self._held: tuple[int, ByteCache[str, tuple[str, ...]]] = (-1, ByteCache(MERGED_BYTES))

    def into(self, connection: Connection, user_id: str | None, stamp: int) -> tuple[str, ...]:
        """What was merged into a user; `stamp`: that of aliases, read before this call."""
        if user_id is None:
            return ()
        if self._held[0] != stamp:
            self._held = (stamp, ByteCache(MERGED_BYTES))
        kept = self._held[1]
        found = kept.get(user_id)
        if found is None:
            found = history_rows.merged_into(connection, user_id)
            kept.put(user_id, found)
        return found

    @property
    def bytes(self) -> int:
        """What is kept, in bytes."""
        return self._held[1].bytes


def past_events(
    connection: Connection,
    request: Request,
    bundle: Bundle | None,
    source: EventsSource,
    merged: MergedKeys,
    stamp: int,
) -> tuple[History, str | None]:
    """A request's past events, oldest first, and why some may be missing (None: none is).

    `stamp`: that of aliases. Raises StorageUnavailableError.
    """
    stored, degraded = History([], True), None
    if request.user_id is not None or request.session_id is not None:
        limit = (bundle.max_length if bundle else 0) + EXTRA_HISTORY
        ids = merged.into(connection, request.user_id, stamp)
        owner = Owner(request.user_id, request.session_id, ids)
        try:
            stored = source.history(connection, owner, limit)
            if bundle is not None and _is_short(bundle, stored):
                inputs, most = bundle.input_event_types, bundle.max_length
                stored = _with_older(stored, source.history(connection, owner, most, inputs))
        except SourceUnavailableError as error:
            degraded = f"{error}: stored history is left out"
    if request.as_of_us is not None:
        before = [one for one in stored.events if one.timestamp_us <= request.as_of_us]
        stored = replace(stored, events=before)
    if not request.events:
        return stored, degraded
    known = {event.event_id for event in stored.events}
    given = [event for event in given_events(request.events) if event.event_id not in known]
    return replace(stored, events=stored.events + given), degraded


def _is_short(bundle: Bundle, stored: History) -> bool:
    """Whether older events than the stored ones may be among those that the model reads."""
    if stored.complete or not bundle.input_event_types:
        return False
    return len(past_read(bundle, stored.events)) < bundle.max_length


def _with_older(stored: History, read: History) -> History:
    """The stored events after the older ones of `read`, whose types the model reads."""
    known, first_us = set(stored.events), stored.events[0].timestamp_us
    older = [one for one in read.events if one not in known and one.timestamp_us <= first_us]
    return replace(stored, events=older + stored.events)


def given_events(events: Iterable[Event]) -> list[HistoryEvent]:
    """The events of a request, in the order of their times, equal times as given."""
    ordered = sorted(events, key=lambda event: event.timestamp_us)
    return [
        HistoryEvent(e.item_id, e.event_type, e.timestamp_us, e.session_id, e.event_id or "")
        for e in ordered
    ]


def past_read(bundle: Bundle, past: list[HistoryEvent]) -> list[HistoryEvent]:
    """The events of `past` whose type the bundle's model reads."""
    inputs = set(bundle.input_event_types)
    return [event for event in past if not inputs or event.event_type in inputs]


def encoded(bundle: Bundle, past: list[HistoryEvent]) -> Histories:
    """`past` as the bundle's model reads it: one history (B = 1)."""
    items, types, times, sessions, *_ = zip(*past, strict=True) if past else ((),) * 4
    return encode_history(bundle, items, types, times, sessions)
