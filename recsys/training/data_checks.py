"""Check the log before each training: a model learns from a broken log too.

Every check gives a figure and its limit, so that a limit can be set by looking at what runs print.
Shares and daily counts are judged only where there is enough to judge.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

import numpy as np

from recsys.config import Settings
from recsys.errors import DataCheckError, NotEnoughDataError
from recsys.events.array_types import AnyArray, BoolArray, Float64Array, Int32Array, Int64Array
from recsys.events.frame import EventFrame
from recsys.events.large_arrays import chunks, count_codes
from recsys.events.times import DAY_US, MINUTE_US
from recsys.models.bundle import Bundle
from recsys.models.version_facts import Check
from recsys.progress import Say
from recsys.training.floods import thinned

ENOUGH_EVENTS = 5_000  # below it shares are left alone: the few hold much of it
RECENT_DAYS = 90  # in which a gap counts
COMPARED_DAYS = 7  # before the last one
HEAD = 1_000  # items told apart when distributions are compared
REPEATED = 3  # events from which on a user who has seen one item alone is odd


@dataclass(frozen=True)
class ChampionData:
    """The items and event types that the champion learned, and until when."""

    item_ids: Container[object]
    event_types: Container[object]
    until_us: int


def check_before_training(
    frame: EventFrame, settings: Settings, champion: Bundle | None, say: Say
) -> tuple[EventFrame, list[Check]]:
    """Check the log by itself and against the `champion`'s data; each check is one line for `say`.

    The log that is fit to be learned, and its checks: where a check fails, and only for what sessions
    without a user sent lately, the log without them, with what failed and why beside its checks.
    Raises NotEnoughDataError where there are too few events or users, DataCheckError where any
    other check fails.
    """
    known = None
    if champion is not None:
        facts = champion.facts
        known = ChampionData(champion.vocabulary, champion.event_types, facts.data_end_us)
    checks = check_frame(frame, settings, known)
    for check in checks:
        say(str(check))
    failed = [check for check in checks if not check.passed]
    if not failed:
        return frame, checks
    reason = "; ".join(str(check).removeprefix("FAILED: ") for check in failed)
    bounds = [
        f"{key} = {days}"
        for key, days in (
            ("sequences.max_days", settings.sequences.max_days),
            ("events.retention_days", settings.events.retention_days),
        )
        if days
    ]
    if len(frame) == 0 and bounds:
        reason += f"; events older than {' or '.join(bounds)} days before now are left out"
    if all(check.name in ("min_events", "min_users") for check in failed):
        raise NotEnoughDataError(reason)
    for part in thinned(frame):
        again = check_frame(part.frame, settings, known)
        if all(check.passed for check in again):
            say(f"WARNING: a flood: {part}")
            told = [replace(one, meaning=f"{one.meaning}; {part}") for one in failed]
            return part.frame, [*again, *told]
    raise DataCheckError(reason)


def check_frame(frame: EventFrame, settings: Settings, known: ChampionData | None) -> list[Check]:
    """Every check of a log; where the champion's data is known, also of how the newer part differs."""
    limits = settings.training
    users = count_codes(frame.users, len(frame.user_keys))
    found = [
        _least("min_events", len(frame), limits.min_events, "events"),
        _least("min_users", int(np.count_nonzero(users)), limits.min_users, "users or sessions"),
    ]
    if len(frame) == 0:
        return found
    gap_days = _longest_silence_us(frame.timestamps_us) / DAY_US
    found.append(_most("max_gap_days", gap_days, limits.max_gap_days, "longest silence, days"))
    daily = _daily(frame.timestamps_us)
    if daily is not None and len(frame) >= ENOUGH_EVENTS:
        last, usual = daily
        found.append(
            _most("max_drop", 1 - last / usual, limits.max_drop, "drop of the last day's events")
        )
        found.append(
            _most("max_surge", last / usual, limits.max_surge, "last day's events, times the usual")
        )
    if len(frame) >= ENOUGH_EVENTS:
        cap = settings.sequences.max_user_events
        capped = np.minimum(users, cap) if cap else users
        found.append(
            _most(
                "max_user_share",
                float(capped.max() / capped.sum()),
                limits.max_user_share,
                "share of the busiest user",
            )
        )
        share = float(count_codes(frame.items, len(frame.item_ids)).max() / len(frame))
        found.append(
            _most("max_item_share", share, limits.max_item_share, "share of the busiest item")
        )
        found.append(
            _most(
                "max_single_item_users",
                _single_item_share(frame.users, frame.items, users),
                limits.max_single_item_users,
                f"share of users with {REPEATED} events or more, all of one item",
            )
        )
    if known is not None:
        found += _newer(frame, settings, known)
    return found


def _newer(frame: EventFrame, settings: Settings, known: ChampionData) -> list[Check]:
    limits = settings.training
    new = frame.timestamps_us > known.until_us
    if int(new.sum()) < ENOUGH_EVENTS or new.all():
        return []
    items = np.fromiter((i not in known.item_ids for i in frame.item_ids), np.bool_)
    types = np.fromiter((t not in known.event_types for t in frame.type_names), np.bool_)

    def share_of(unknown: BoolArray, codes: AnyArray) -> float:
        counts = count_codes(codes, len(unknown), new)
        return float(counts[unknown].sum() / counts.sum())

    return [
        _most(
            "max_new_item_share",
            share_of(items, frame.items),
            limits.max_new_item_share,
            "share of newer events with items unknown to the champion",
        ),
        _most(
            "max_new_type_share",
            share_of(types, frame.event_types),
            limits.max_new_type_share,
            "share of newer events of types unknown to the champion",
        ),
        _most(
            "max_drift",
            divergence(
                count_codes(frame.items, len(items), ~new),
                count_codes(frame.items, len(items), new),
            ),
            limits.max_drift,
            "drift of the items' distribution since the champion",
        ),
    ]


def divergence(before: Int64Array, after: Int64Array) -> float:
    """Jensen-Shannon divergence in bits, 0..1, of two counts (n,) of the same things.

    The HEAD largest are told apart, the rest is one, so that a long tail that is never sampled twice
    does not look like a change.

    >>> divergence(np.array([5, 5, 0]), np.array([10, 10, 0]))
    0.0
    >>> divergence(np.array([5, 0]), np.array([0, 9]))
    1.0
    """
    p, q = before / max(before.sum(), 1), after / max(after.sum(), 1)
    head = np.argsort(-(p + q), kind="stable")[:HEAD]
    p = np.append(p[head], 1 - p[head].sum()).clip(0)
    q = np.append(q[head], 1 - q[head].sum()).clip(0)
    middle = (p + q) / 2

    def distance(one: Float64Array) -> float:
        there = one > 0
        return float((one[there] * np.log2(one[there] / middle[there])).sum())

    return min(1.0, max(0.0, (distance(p) + distance(q)) / 2))


def _longest_silence_us(times: Int64Array) -> int:
    """The longest time without an event in the newest RECENT_DAYS; below a minute 0."""
    newest = int(times.max())
    minutes = RECENT_DAYS * DAY_US // MINUTE_US + 1
    first = np.full(minutes, newest, np.int64)  # of each minute, counted back from the newest
    last = np.zeros(minutes, np.int64)
    for part in chunks(len(times)):
        ages = (newest - times[part]) // MINUTE_US
        recent = ages < minutes
        np.minimum.at(first, ages[recent], times[part][recent])
        np.maximum.at(last, ages[recent], times[part][recent])
    there = np.flatnonzero(last)[::-1]  # oldest first
    return int((first[there][1:] - last[there][:-1]).max(initial=0))


def _single_item_share(users: Int32Array, items: Int32Array, counts: Int64Array) -> float:
    """Of the users with REPEATED events or more, the share who have seen one item alone, as bots that
    push an item do.

    >>> events = np.array([0, 0, 0, 1, 1, 1], np.int32), np.array([4, 4, 4, 4, 5, 4], np.int32)
    >>> _single_item_share(*events, np.array([3, 3]))
    0.5
    """
    lowest, highest = np.full(len(counts), np.iinfo(np.int32).max), np.full(len(counts), -1)
    for part in chunks(len(users)):
        np.minimum.at(lowest, users[part], items[part])
        np.maximum.at(highest, users[part], items[part])
    often = counts >= REPEATED
    return float((lowest == highest)[often].mean()) if often.any() else 0.0


def _daily(times: Int64Array) -> tuple[int, float] | None:
    """Events of the newest 24 hours, and the median of the days before; None where those are few."""
    newest, oldest = int(times.max()), int(times.min())
    counts = np.zeros(COMPARED_DAYS + 1, np.int64)
    for part in chunks(len(times)):
        ages = (newest - times[part]) // DAY_US
        counts += np.bincount(ages[ages <= COMPARED_DAYS], minlength=COMPARED_DAYS + 1)
    usual = float(np.median(counts[1:]))
    covered = newest - oldest >= (COMPARED_DAYS + 1) * DAY_US
    return (int(counts[0]), usual) if covered and usual > 0 else None


def _most(name: str, value: float, limit: float, meaning: str) -> Check:
    return Check(name, float(value), float(limit), value <= limit, meaning)


def _least(name: str, value: float, limit: float, meaning: str) -> Check:
    return Check(name, float(value), float(limit), value >= limit, meaning)
