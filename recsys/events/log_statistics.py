"""Statistics of an event log, on which to decide whether a model can learn from it.

Legend: E events, N sequences.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from recsys.events.array_types import BoolArray, Int16Array, Int64Array
from recsys.events.frame import EventFrame
from recsys.events.sequences import Sequences
from recsys.events.time_split import tied_share
from recsys.events.times import HOUR_US

LENGTHS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000)
GAPS = {
    "same time": 0,
    "under 1 s": 1,
    "1 to 10 s": 10,
    "10 to 60 s": 60,
    "1 to 10 min": 600,
    "10 to 60 min": 3_600,
    "1 to 24 h": 86_400,
    "1 to 7 days": 7 * 86_400,
    "7 to 30 days": 30 * 86_400,
    "over 30 days": None,
}
BOT_EVENTS = 200  # a user with fewer is no bot by these rules
BOT_GAP_SECONDS = 1.0  # median time between events below which a user is no person
BOT_TIMES = 50  # how many times the 99th percentile of lengths


def statistics(frame: EventFrame, sequences: Sequences) -> dict[str, Any]:
    """Statistics of an event frame, JSON-ready; shares are 0..1, of events or of steps in sequences."""
    lengths = sequences.lengths
    inner = np.ones(sequences.event_count, np.bool_)
    inner[sequences.offsets[:-1]] = False
    steps = max(1, int(inner.sum()))
    gaps = np.zeros(sequences.event_count, np.int64)
    gaps[1:] = np.diff(sequences.timestamps_us)
    again, seen = _repeats(sequences, inner)
    bots = _bots(sequences, gaps)
    item_counts = np.bincount(sequences.items, minlength=1)
    ordered = np.sort(item_counts[item_counts > 0])[::-1]
    head = ordered[: max(1, len(ordered) // 100)].sum() / max(1, ordered.sum())
    return {
        "sequences": len(sequences),
        "median_length": float(np.median(lengths)) if len(lengths) else 0.0,
        "mean_length": round(float(lengths.mean()), 2) if len(lengths) else 0.0,
        "longest": int(lengths.max(initial=0)),
        "of_one_event": round(float((lengths == 1).mean()), 4) if len(lengths) else 0.0,
        "lengths": _length_histogram(lengths),
        "sessions_per_sequence": round(
            float(sequences.session_starts.sum()) / max(1, len(sequences)), 2
        ),
        "gaps": _gap_histogram(gaps[inner]),
        "median_gap_seconds": float(np.median(gaps[inner])) / 1e6 if inner.any() else 0.0,
        "tied_share": round(tied_share(sequences), 4),
        "same_item_again_share": round(float(again.sum()) / steps, 4),
        "earlier_item_again_share": round(float(seen.sum()) / steps, 4),
        "events_of_top_percent_of_items": round(float(head), 4),
        "event_types": _named_counts(frame.event_types, frame.type_names),
        "bot_like_users": int(bots.sum()),
        "bot_like_event_share": round(
            float(lengths[bots].sum()) / max(1, sequences.event_count), 4
        ),
        "longest_silence_hours": round(_silence(sequences.timestamps_us), 2),
    }


def _repeats(sequences: Sequences, inner: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Masks (E,) of events that repeat the item just before, and of those that repeat an earlier one."""
    again = np.zeros(sequences.event_count, np.bool_)
    again[1:] = inner[1:] & (sequences.items[1:] == sequences.items[:-1])
    owners = sequences.owners()
    order = np.lexsort((np.arange(len(owners)), sequences.items, owners))
    same = (owners[order][1:] == owners[order][:-1]) & (
        sequences.items[order][1:] == sequences.items[order][:-1]
    )
    seen = np.zeros(sequences.event_count, np.bool_)
    seen[order[1:]] = same
    return again, seen & ~again


def _bots(sequences: Sequences, gaps: Int64Array) -> BoolArray:
    """Mask (N,) of likely bots: many events at machine pace, or far more events than anyone else."""
    lengths = sequences.lengths
    found = np.zeros(len(lengths), np.bool_)
    if not len(lengths):
        return found
    far = max(BOT_EVENTS, BOT_TIMES * float(np.quantile(lengths, 0.99)))
    for number in np.flatnonzero(lengths >= BOT_EVENTS):
        own = gaps[sequences.offsets[number] + 1 : sequences.offsets[number + 1]]
        found[number] = lengths[number] > far or np.median(own) < BOT_GAP_SECONDS * 1e6
    return found


def _length_histogram(lengths: Int64Array) -> list[dict[str, Any]]:
    bounds = [*LENGTHS, 2**62]
    found = []
    for low, after in pairwise(bounds):
        count = int(((lengths >= low) & (lengths < after)).sum())
        label = (
            str(low) if after == low + 1 else f"{low}-{after - 1}" if after < 2**62 else f"{low}+"
        )
        found.append({"length": label, "sequences": count})
    return found


def _gap_histogram(gaps: Int64Array) -> list[dict[str, Any]]:
    bounds = np.array([0 if s == 0 else s * 1_000_000 for s in GAPS.values() if s is not None])
    places = np.searchsorted(bounds, gaps, side="left")
    places[gaps == 0] = 0
    counts = np.bincount(places, minlength=len(GAPS))
    return [{"gap": name, "steps": int(count)} for name, count in zip(GAPS, counts, strict=True)]


def _named_counts(codes: Int16Array, names: list[str]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:20]
    return {names[at]: int(counts[at]) for at in order if counts[at]}


def _silence(times: Int64Array) -> float:
    """The longest gap between two events of the log, in hours."""
    return float(np.diff(np.sort(times)).max(initial=0)) / HOUR_US
