"""Rotation: items that a visitor was shown often enough without a click sink for a while."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Showing(NamedTuple):
    """An item in an answer, and when the answer was given."""

    item_id: str
    at_us: int


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
