"""Data quality figures from two bounded samples: whole users, and the newest events.

Histograms of sequence length and time gap, repeats, how popularity is spread, items the champion does
not know, and users who click like machines. Legend: E events, U users.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import pairwise
from typing import Any

import numpy as np

from recsys.events.array_types import AnyArray, Int64Array
from recsys.events.frame import EventFrame
from recsys.events.times import DAY_US, SECOND_US

LENGTHS = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)  # where each class of lengths begins
GAPS = (0, 1, 10, 60, 600, 1_800, 3_600, 21_600, 86_400, 604_800)  # the same of gaps, in seconds
GAP_NAMES = (
    *("under 1 s", "1 to 10 s", "10 s to 1 min", "1 to 10 min", "10 to 30 min", "30 min to 1 h"),
    *("1 to 6 h", "6 to 24 h", "1 to 7 days", "over 7 days"),
)
CURVE_POINTS = 41
BUSIEST = 12  # users shown
BOT_EVENTS = 50  # fewer are nobody's machine
BOT_GAP_SECONDS = 1.0  # half of a machine's gaps lie below it
BOT_PER_HOUR = 600  # or so many events in an hour


def sequence_facts(frame: EventFrame) -> dict[str, Any]:
    """Sequence lengths, time gaps, repeats and the popularity curve of a sample of users, JSON-ready.

    `exact_repeats`: share of the events equal to the one before in user, item, type and time.
    `same_item`: share of the steps that stay at an item. `same_time`: share of the steps without a
    gap, whose order only the order of arrival tells.
    """
    order = np.lexsort((frame.positions, frame.timestamps_us, frame.users))
    users, items = frame.users[order], frame.items[order]
    types, times = frame.event_types[order], frame.timestamps_us[order]
    steps = users[1:] == users[:-1]
    gaps = (times[1:] - times[:-1])[steps] / SECOND_US
    same_item = (items[1:] == items[:-1])[steps]
    equal = same_item & (types[1:] == types[:-1])[steps] & (gaps == 0)
    lengths = np.bincount(users)
    lengths = lengths[lengths > 0]
    return {
        "events": len(frame),
        "users": len(lengths),
        "lengths": _classes(lengths, LENGTHS, _length_names()),
        "median_length": float(np.median(lengths)) if len(lengths) else None,
        "gaps": _classes(gaps, GAPS, GAP_NAMES),
        "median_gap_seconds": float(np.median(gaps)) if len(gaps) else None,
        "exact_repeats": float(equal.sum() / len(frame)) if len(frame) else None,
        "same_item": float(same_item.mean()) if len(gaps) else None,
        "same_time": float((gaps == 0).mean()) if len(gaps) else None,
        "popularity": popularity_curve(np.bincount(items)),
    }


def popularity_curve(counts: Int64Array) -> dict[str, Any]:
    """The popularity curve: shares of the items, most popular first, and their share of the events.

    >>> popularity_curve(np.array([8, 1, 1, 0]))["top_tenth"]
    0.8
    """
    counts = np.sort(counts[counts > 0])[::-1]
    if len(counts) == 0:
        return {"items": [], "events": [], "distinct": 0, "top_tenth": None}
    held = np.concatenate(([0], np.cumsum(counts))) / counts.sum()
    # Closer together at the head, where the curve bends.
    shares = np.linspace(0, 1, CURVE_POINTS) ** 2
    places = np.unique(np.ceil(shares * len(counts)).astype(np.int64))
    return {
        "items": (places / len(counts)).tolist(),
        "events": held[places].tolist(),
        "distinct": len(counts),
        "top_tenth": float(held[max(1, round(len(counts) / 10))]),
    }


def newest_facts(frame: EventFrame, known: Container[object] | None) -> dict[str, Any]:
    """Events with items not `known` to the champion, by day, and the busiest users, of the newest events."""
    facts: dict[str, Any] = {"events": len(frame), "unknown": None, "unknown_by_day": []}
    if len(frame) == 0:
        return {**facts, "from_us": None, "until_us": None, "busiest": []}
    times = frame.timestamps_us
    facts |= {"from_us": int(times.min()), "until_us": int(times.max())}
    if known is not None:
        unknown = np.array([item not in known for item in frame.item_ids], np.bool_)[frame.items]
        days, place = np.unique(times // DAY_US, return_inverse=True)
        events = np.bincount(place)
        share = np.bincount(place, weights=unknown) / events
        kept = slice(-60, None)
        facts["unknown"] = float(unknown.mean())
        facts["unknown_by_day"] = [
            [int(day) * DAY_US, int(number), float(one)]
            for day, number, one in zip(days[kept], events[kept], share[kept], strict=True)
        ]
    return {**facts, "busiest": busiest(frame)}


def busiest(frame: EventFrame) -> list[dict[str, Any]]:
    """The users with the most events, and whether they click like machines, JSON-ready."""
    counts = np.bincount(frame.users, minlength=len(frame.user_keys))
    found = []
    for user in np.argsort(-counts, kind="stable")[:BUSIEST]:
        if counts[user] == 0:
            break
        mine = frame.users == user
        times = np.sort(frame.timestamps_us[mine])
        gaps = np.diff(times) / SECOND_US
        hour = int(np.bincount((times - times[0]) // (3_600 * SECOND_US)).max())
        gap = float(np.median(gaps)) if len(gaps) else None
        number = int(counts[user])
        fast = gap is not None and gap < BOT_GAP_SECONDS and bool((gaps > 0).any())
        found.append(
            {
                "key": frame.user_keys[user],
                "events": number,
                "share": number / len(frame),
                "items": len(np.unique(frame.items[mine])),
                "median_gap_seconds": gap,
                "most_in_an_hour": hour,
                "last_us": int(times[-1]),
                "machine": number >= BOT_EVENTS and (fast or hour >= BOT_PER_HOUR),
            }
        )
    return found


def _classes(values: AnyArray, begins: tuple[int, ...], names: tuple[str, ...]) -> list[list[Any]]:
    """[name, count] of each class of a histogram, without empty classes at the end."""
    at = np.searchsorted(begins, values, side="right") - 1
    counts = np.bincount(at[at >= 0], minlength=len(begins)).tolist()
    used = max((place + 1 for place, count in enumerate(counts) if count), default=0)
    return [[name, count] for name, count in zip(names[:used], counts[:used], strict=True)]


def _length_names() -> tuple[str, ...]:
    """
    >>> _length_names()[:4]
    ('1', '2', '3 to 4', '5 to 8')
    """
    spans = [(first, after - 1) for first, after in pairwise(LENGTHS)]
    return (*(f"{a}" if a == b else f"{a} to {b}" for a, b in spans), f"over {LENGTHS[-1] - 1}")
