"""Who is in an experiment, and in which of its arms: by keyed hashes, the same at every call.

Experiments that exclude one another share a space of BUCKETS; each holds some of them, and a ramp takes
more. So whoever is in stays in, and in the same arm. The arm is drawn by another hash, of the experiment's
name, so that the next experiment in the same buckets mixes them again.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from itertools import accumulate

from recsys.errors import ConflictError

BUCKETS = 10_000  # an allocation's grain: a hundredth of a percent

Ranges = tuple[tuple[int, int], ...]  # of buckets, [from, to) each, in order


def hashed(text: str, key: bytes) -> float:
    """A number in [0, 1) that nobody can tell or choose who lacks the key."""
    digest = hmac.digest(key, text.encode(), "sha256")
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def bucket_of(space: str, unit: str, key: bytes) -> int:
    """The bucket of a unit ('u:<user_id>' or 's:<session_id>') in a space of experiments."""
    return int(hashed(f"experiments {space} {unit}", key) * BUCKETS)


def holds(ranges: Ranges, bucket: int) -> bool:
    """
    >>> holds(((0, 10), (20, 30)), 9), holds(((0, 10), (20, 30)), 10)
    (True, False)
    """
    return any(low <= bucket < high for low, high in ranges)


def drawn_arm(name: str, unit: str, weights: Sequence[float], key: bytes) -> int:
    """Which of the arms of experiment `name` a unit is in, by their weights."""
    at = hashed(f"arm {name} {unit}", key) * sum(weights)
    bounds = list(accumulate(weights))
    return next((place for place, bound in enumerate(bounds) if at < bound), len(bounds) - 1)


def widened(held: Ranges, taken: Iterable[Ranges], allocation: float) -> Ranges:
    """`held` with the first free buckets added until it holds the share `allocation` of all.

    `taken`: what others of the space hold. Raises ConflictError where too few are free, or where
    `held` is more already: who is in an experiment stays in.

    >>> widened(((0, 1000),), [((1000, 9000),)], 0.15)
    ((0, 1000), (9000, 9500))
    """
    wanted = round(allocation * BUCKETS)
    missing = wanted - sum(high - low for low, high in held)
    if missing < 0:
        raise ConflictError("a running experiment's allocation can only grow: who is in stays in")
    used = {
        bucket for ranges in (held, *taken) for low, high in ranges for bucket in range(low, high)
    }
    free = [bucket for bucket in range(BUCKETS) if bucket not in used]
    if missing > len(free):
        left = (len(free) + wanted - missing) / BUCKETS
        raise ConflictError(
            f"others of its group leave room for an allocation of {left:.4f}, not {allocation:.4f}"
        )
    return _as_ranges(sorted(free[:missing] + [b for low, high in held for b in range(low, high)]))


def _as_ranges(buckets: Sequence[int]) -> Ranges:
    ranges: list[tuple[int, int]] = []
    for bucket in buckets:
        if ranges and ranges[-1][1] == bucket:
            ranges[-1] = (ranges[-1][0], bucket + 1)
        else:
            ranges.append((bucket, bucket + 1))
    return tuple(ranges)
