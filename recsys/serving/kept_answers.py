"""Rankings of visitors who come back: kept as long as all that they rest on stands, and no longer.

The visitor's events are read from the database at each request, so a click of a moment ago is in the next
answer; what others did, the catalogue and the counts are compared by what they are at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from recsys.events.times import MINUTE_US
from recsys.models.blend import TRENDING_US
from recsys.models.bundle import Bundle
from recsys.models.ranking import rankers_in, served_blend
from recsys.serving.answers import Candidate, Request
from recsys.serving.byte_cache import ByteCache, bytes_of

if TYPE_CHECKING:
    from recsys.serving.context import RankingContext

Recent = Callable[
    [Bundle, int], object
]  # the counts of the last days, the same object until counted anew

KEPT_BYTES = 32 * 2**20
CANDIDATE_BYTES = 250  # of an item that was chosen
ENTRY_BYTES = 1_500  # of an ordinary key and of what the entry rests on


class _Key(NamedTuple):
    """Who asked for what, after which events."""

    version: str
    request: Request
    minute: int | None  # where an expression names the time
    events: int
    last_event_id: str
    past: int  # a keyed hash of all events


class Place(NamedTuple):
    """Where a ranking is kept, and all that it rests on beside that, each the very object that it is."""

    key: _Key
    rests_on: tuple[object, ...]


class _Kept(NamedTuple):
    rests_on: tuple[object, ...]
    chosen: list[Candidate]


class KeptAnswers:
    """Rankings of one process; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: ByteCache[_Key, _Kept] = ByteCache(KEPT_BYTES, _size_of, _key_bytes)

    @property
    def bytes(self) -> int:
        """What is kept, in bytes."""
        return self._kept.bytes

    def find(self, place: Place | None) -> list[Candidate] | None:
        """What was chosen there before; None where nothing was, or something has changed since."""
        found = None if place is None else self._kept.get(place.key)
        if place is None or found is None or len(found.rests_on) != len(place.rests_on):
            return None
        same = all(one is other for one, other in zip(found.rests_on, place.rests_on, strict=True))
        return found.chosen if same else None

    def keep(self, place: Place | None, chosen: list[Candidate]) -> None:
        """Keep a full answer, which the version's ranking alone gave."""
        if place is not None and len(chosen) == place.key.request.k:
            self._kept.put(place.key, _Kept(place.rests_on, chosen))


def place_of(context: RankingContext, recent: Recent) -> Place | None:
    """None where an answer is not kept: without a model or past, degraded, for events that are given, or
    where the scenario wants a new one each time, or an expression names the user's attributes.
    """
    request, bundle, past = context.request, context.bundle, context.past
    if bundle is None or not past or context.degraded or request.explain or request.events:
        return None
    spec = request.scenario_spec
    if spec is not None and (spec.rotation is not None or spec.explore is not None):
        return None
    asked = request.expressions
    if any(one.user_names for one in asked):
        return None
    minute = context.now_us // MINUTE_US if any(one.names_now for one in asked) else None
    key = _Key(bundle.version, request, minute, len(past), past[-1].event_id, hash(tuple(past)))
    shared = context.filters.snapshot, context.followers, recent(bundle, context.now_us)
    live, blend = bundle.live, served_blend(bundle)
    if live is None:
        return Place(key, (*shared, None))
    names = [] if blend is None else rankers_in(bundle, blend)
    counted = [live.trending(TRENDING_US[name])[0] for name in names if name in TRENDING_US]
    return Place(key, (*shared, live.standing, *counted))


def _key_bytes(key: _Key) -> int:
    """What a request may name many of; a scenario's own rules are shared by all who ask for it."""
    asked = key.request
    many = (asked.exclude_items, asked.categories, asked.candidates, asked.conditions, asked.boosts)
    return sum(bytes_of(one) for one in (*many, asked.for_items, asked.shown_before) if one)


def _size_of(kept: _Kept) -> int:
    return ENTRY_BYTES + CANDIDATE_BYTES * len(kept.chosen)
