"""Rotation: items that a visitor was shown often enough without a click sink for a while."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from recsys.events.times import HOUR_US
from recsys.serving.answers import Request
from recsys.storage.engine.database import Connection
from recsys.storage.entities import impression_rows
from recsys.storage.entities.history_rows import HistoryEvent

ANSWERS = 200  # newest ones of a visitor that are looked at


class Showing(NamedTuple):
    """An item in an answer, and when the answer was given."""

    item_id: str
    at_us: int


def sunk_for(
    connection: Connection, request: Request, past: Sequence[HistoryEvent], now_us: int
) -> frozenset[str]:
    """The items that sink for the user, or else the session, of a request whose scenario rotates; else none.

    Showings are those of all scenarios, as the answers' log has them. `past`: the visitor's events, oldest first.
    """
    rule = request.scenario_spec.rotation if request.scenario_spec else None
    if rule is None or (request.user_id is None and request.session_id is None):
        return frozenset()
    span_us = round(rule.hours * HOUR_US)
    answers = impression_rows.answers_to(
        connection, request.user_id, request.session_id, now_us - 2 * span_us, ANSWERS
    )
    showings = [Showing(item_id, at_us) for at_us, shown in answers for item_id in shown]
    touched_us = {event.item_id: event.timestamp_us for event in past}
    return sunk_items(showings, touched_us, rule.shown, span_us, now_us)


def sunk_items(
    showings: Iterable[Showing],
    touched_us: Mapping[str, int],
    times: int,
    span_us: int,
    now_us: int,
) -> frozenset[str]:
    """Items shown `times` within `span_us` without a click, the last of those less than `span_us` ago.

    `showings`: of one visitor, in any order, of the last 2 * `span_us` at least; one answer shows an item
    once. `touched_us`: when the visitor last did something with an item; what was shown before that does
    not count.

    >>> seen = [Showing("a", 10), Showing("a", 20), Showing("b", 20), Showing("b", 90)]
    >>> sorted(sunk_items(seen, {}, 2, 60, 70)), sorted(sunk_items(seen, {"a": 15}, 2, 60, 70))
    (['a'], [])
    """
    times_of: dict[str, list[int]] = {}
    for item_id, at_us in showings:
        if now_us - 2 * span_us < at_us and at_us > touched_us.get(item_id, at_us - 1):
            times_of.setdefault(item_id, []).append(at_us)
    return frozenset(
        item_id for item_id, at in times_of.items() if _sinks(sorted(at), times, span_us, now_us)
    )


def _sinks(at_us: list[int], times: int, span_us: int, now_us: int) -> bool:
    """Whether some `times` showings in a row lie within the span, and the last of them does not lie
    further back than that.
    """
    return any(
        last - first <= span_us and now_us - last < span_us
        for first, last in zip(at_us, at_us[times - 1 :], strict=False)
    )
