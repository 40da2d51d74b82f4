"""By what a row is known again where its table numbers none: a hash of all that it says.

Rows that say the same are numbered, so that repeats stay and no row counts twice when it is read once
more: which of equal rows comes first makes no difference.

Legend: n rows.
"""

from __future__ import annotations

import numpy as np

from recsys.events.array_types import Int64Array, UInt64Array

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


def mixed(*columns: UInt64Array) -> UInt64Array:
    """One 64-bit hash (n,) of several; the finaliser of SplitMix64 (Steele, Lea and Flood 2014).

    >>> one, two = np.array([1], np.uint64), np.array([2], np.uint64)
    >>> bool(mixed(one, two) == mixed(two, one))
    False
    """
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        found = (found ^ column) + _STEP
        for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
            found = (found ^ (found >> np.uint64(shift))) * multiplier
        found ^= found >> np.uint64(31)
    return found


def occurrences(hashes: UInt64Array) -> Int64Array:
    """The number of each row among those with the same hash, from 0; (n,).

    >>> occurrences(np.array([7, 5, 7, 7], np.uint64)).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    numbers = np.arange(len(hashes))
    first = np.ones(len(hashes), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    starts = np.maximum.accumulate(np.where(first, numbers, 0))
    found = np.empty(len(hashes), np.int64)
    found[order] = numbers - starts
    return found


def positions_of(hashes: UInt64Array, *, repeats: bool) -> Int64Array:
    """A position (n,) of each row, below 2**63; unless `repeats`, equal rows have equal positions."""
    if repeats:
        hashes = mixed(hashes, occurrences(hashes).astype(np.uint64))
    return (hashes >> np.uint64(1)).astype(np.int64)
