"""Times written as numbers -> µs since 1970, UTC; and the outcomes of parsing a time.

Legend: n rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events.array_types import BoolArray, Float64Array, Int64Array, UInt8Array
from recsys.events.times import MICROSECONDS
from recsys.ingest.arrow_columns import as_numbers, text_bytes

BEYOND = 2.0**62  # µs that int64 is not asked to hold
# A number below this is of another unit than it is taken for: milliseconds of 2024 are µs of 1970.
EARLIEST_NUMBER_US = 94_694_400_000_000  # 1973-01-01, UTC
US_A_YEAR = 31_556_952_000_000

# What became of a row's time.
FINE, MISSING, UNREADABLE, TOO_EARLY, TOO_LATE, NO_OFFSET, NO_MILLISECONDS = range(7)


@dataclass(frozen=True)
class Times:
    """Times of n rows, each with its outcome: FINE, or why it was rejected."""

    us: Int64Array  # (n,) µs since 1970, UTC; only meant where FINE
    outcome: UInt8Array  # (n,)
    estimate_us: Float64Array  # (n,) what was read, however far out; NaN where nothing was
    unit: str | None  # the unit by which numbers were taken


def plausible(us: float, latest_us: int) -> bool:
    """Whether a log may well be of that time: 1990 or later."""
    return 20 * US_A_YEAR < us <= latest_us


def too_early(number: float, unit: str, latest_us: int) -> str | None:
    """What is wrong with a time written as a `number` of `unit` that lies before 1973; None if it
    does not.

    >>> too_early(1_714_564_800, "ms", 1_800_000_000_000_000)
    'as ms is before 1973; is the unit s?'
    """
    us = number * MICROSECONDS[unit]
    if us >= EARLIEST_NUMBER_US:
        return None
    fitting = [u for u, factor in MICROSECONDS.items() if plausible(number * factor, latest_us)]
    hint = f"; is the unit {fitting[0]}?" if fitting else ""
    return f"as {unit} is before {1970 if us < 0 else 1973}{hint}"


def from_numbers(column: pa.Array, unit: str) -> Times:
    """Numbers or numeric text times `unit`; whole numbers are taken exactly."""
    if pa.types.is_integer(column.type):
        return from_integers(column, unit)
    if not pa.types.is_string(column.type):
        values, missing, _ = as_numbers(column)
        return times_of(values * MICROSECONDS[unit], missing, unit)
    _, characters = text_bytes(column)
    if ((characters >= 48) & (characters <= 57)).all() and not pc.any(pc.equal(column, "")).as_py():
        try:
            return from_integers(pc.cast(column, pa.int64()), unit)
        except pa.ArrowInvalid:  # beyond 64 bits
            pass
    nothing = pa.scalar(None, pa.string())
    whole = pc.match_substring_regex(column, r"^-?([0-9]{1,18}|[0-8][0-9]{18})$")
    exact = from_integers(pc.cast(pc.if_else(whole, column, nothing), pa.int64()), unit)
    values, missing, _ = as_numbers(column)
    times = times_of(values * MICROSECONDS[unit], missing, unit)
    return Times(
        us=np.where(exact.outcome == FINE, exact.us, times.us),
        outcome=times.outcome,
        estimate_us=times.estimate_us,
        unit=unit,
    )


def from_integers(column: pa.Array, unit: str) -> Times:
    factor = MICROSECONDS[unit]
    missing = pc.is_null(column).to_numpy(zero_copy_only=False)
    values = pc.fill_null(column, 0).to_numpy()
    estimate = np.where(missing, np.nan, values * float(factor))
    with np.errstate(invalid="ignore"):
        near = np.where(np.abs(estimate) < BEYOND, values, 0).astype(np.int64)
    us = near // 1_000 if unit == "ns" else near * int(factor)
    outcome = np.where(missing, MISSING, FINE).astype(np.uint8)
    return Times(us, outcome, estimate, unit)


def times_of(estimate: Float64Array, missing: BoolArray, unit: str | None) -> Times:
    """Times from µs: missing, not finite (so not readable), or fine."""
    finite = np.isfinite(estimate)
    near = finite & (np.abs(np.where(finite, estimate, 0)) < BEYOND)
    us = np.rint(np.where(near, estimate, 0)).astype(np.int64)
    outcome = np.where(finite, FINE, UNREADABLE).astype(np.uint8)
    outcome[missing] = MISSING
    return Times(us, outcome, estimate, unit)
