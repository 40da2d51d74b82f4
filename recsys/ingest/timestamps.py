"""Parsing of a file's time column, ISO text, numbers or Arrow times -> µs since 1970, UTC.

Legend: n rows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError, shown
from recsys.events.array_types import BoolArray, Float64Array, Int64Array
from recsys.events.fields import EARLIEST_US, MAX_FUTURE_SECONDS
from recsys.events.times import DAY_US, MICROSECONDS
from recsys.ingest.arrow_columns import NUMBER, cell_value, text_bytes
from recsys.ingest.iso_times import parse_format, parse_iso
from recsys.ingest.numeric_times import (
    BEYOND,
    EARLIEST_NUMBER_US,
    FINE,
    MISSING,
    NO_MILLISECONDS,
    NO_OFFSET,
    TOO_EARLY,
    TOO_LATE,
    UNREADABLE,
    US_A_YEAR,
    Times,
    from_integers,
    from_numbers,
    plausible,
    times_of,
    too_early,
)

EXAMPLE = "expected RFC 3339 such as 2024-05-01T12:00:00Z"


class TimestampParser:
    """Reads the time columns of one file, chunk after chunk.

    `unit` ('s', 'ms', 'us', 'ns') is that of numbers and numeric text; None for ISO text. Columns
    of a native time type are taken as they are. Times without a UTC offset are in `timezone`. Where
    that is None they are UTC, unless the first time of the file has an offset: then a time without
    one is a mistake, as it is in a `replay` of single rows. What lies below a microsecond is
    dropped.
    """

    def __init__(
        self, name: str, unit: str | None, timezone: str | None, now_us: int, replay: bool = False
    ) -> None:
        if unit is not None and unit not in MICROSECONDS:
            raise InputError("--unit", unit, f"expected one of: {', '.join(MICROSECONDS)}")
        if timezone is not None:
            check_timezone(timezone)
        self.name, self.unit, self.timezone = name, unit, timezone
        self.latest_us = now_us + MAX_FUTURE_SECONDS * 1_000_000
        self._started = replay
        self._format: str | None = None
        self.earliest_number_us = EARLIEST_NUMBER_US
        self._offsets_needed: bool | None = True if replay else None

    def take_format(self, time_format: str) -> None:
        """Read text by `time_format`, as strptime has it. Raises InputError."""
        moment = datetime(2024, 5, 31, 13, 5, 6, tzinfo=UTC)
        try:
            known = datetime.strptime(moment.strftime(time_format), time_format).year == 2024
        except ValueError:
            known = False
        if not known:
            problem = "expected a format with a year, such as %d-%m-%Y %H:%M"
            raise InputError("--time-format", time_format, problem)
        self._format = time_format

    def parse(self, column: pa.Array, more_us: Float64Array | None = None) -> Times:
        """The times of `column` (n,), each with its `more_us` (n,) added where that is given.

        Raises InputError where numbers have no unit, and where the first rows of a file fail one
        and all: that is a wrong unit or a wrong column, not n bad rows.
        """
        times = self._within_range(self._read(column), more_us)
        if not self._started and len(column):
            if (times.outcome != FINE).all():
                raise self._all_failed(column, times)
            self._started = True
        return times

    def reason(self, value: object, times: Times, row: int) -> str:
        """Why `row`, whose source holds `value`, has no acceptable time."""
        problem = self._problem(times, row)
        if times.outcome[row] == MISSING:
            return f"timestamp{problem}"
        return f"timestamp {_bare(value)}{problem}"

    def _read(self, column: pa.Array) -> Times:
        kind = column.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return self._from_native(column)
        is_number = (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        )
        if pa.types.is_null(kind):
            nothing = np.full(len(column), np.nan)
            return times_of(nothing, np.isnan(nothing), None)
        if not is_number and not pa.types.is_string(kind):
            raise InputError(
                "--map", f"timestamp={self.name}", f"a column of type {kind} holds no times"
            )
        if self.unit is not None:
            return from_numbers(column, self.unit)
        if not self._started and self._format is None:
            self._refuse_numbers(column)
        if is_number:
            column = pc.cast(column, pa.string())
        return self._from_text(column)

    def _from_native(self, column: pa.Array) -> Times:
        kind = column.type
        if pa.types.is_date(kind):
            column = pc.cast(column, pa.timestamp("s"))
            kind = column.type
        times = from_integers(pc.cast(column, pa.int64()), kind.unit)
        us = times.us
        if kind.tz is None and self.timezone is not None:
            us = self._to_utc(us, times.outcome == FINE)
        return Times(us, times.outcome, times.estimate_us + (us - times.us), None)

    def _from_text(self, column: pa.Array) -> Times:
        iso = parse_iso(column) if self._format is None else parse_format(column, self._format)
        us = iso.us
        local = iso.readable & ~iso.has_offset
        outcome = np.where(iso.readable, FINE, UNREADABLE).astype(np.uint8)
        if self.timezone is not None:
            us = self._to_utc(us, local)
        else:
            if self._offsets_needed is None and iso.readable.any():
                self._offsets_needed = bool(iso.has_offset[np.argmax(iso.readable)])
            if self._offsets_needed:
                outcome[local] = NO_OFFSET
        offsets, _ = text_bytes(column)
        outcome[np.diff(offsets) == 0] = MISSING
        estimate = np.where(outcome == FINE, us, np.nan)
        return Times(us, outcome, estimate, None)

    def _to_utc(self, us: Int64Array, local: BoolArray) -> Int64Array:
        """`us` with those that are `local` moved from `timezone` to UTC.

        Of an hour that comes twice the first is meant; one that is left out is taken for its end.
        Times so far out that no offset brings them
        into range stay as they are.
        """
        day = DAY_US
        local = local & (us >= EARLIEST_US - day) & (us <= self.latest_us + day)
        if not local.any():
            return us
        naive = pa.array(us[local]).cast(pa.timestamp("us"))
        aware = pc.assume_timezone(naive, self.timezone, ambiguous="earliest", nonexistent="latest")
        moved = us.copy()
        moved[local] = aware.cast(pa.int64()).to_numpy()
        return moved

    def _within_range(self, times: Times, more_us: Float64Array | None) -> Times:
        us, outcome, estimate = times.us, times.outcome.copy(), times.estimate_us
        if more_us is not None:
            outcome[(outcome == FINE) & ~(np.abs(more_us) < BEYOND)] = NO_MILLISECONDS
            more_us = np.where(outcome == FINE, more_us, 0.0)
            us, estimate = us + np.rint(more_us).astype(np.int64), estimate + more_us
        fine = outcome == FINE
        # Judged row by row: a file may change its unit midway.
        earliest = EARLIEST_US if times.unit is None else self.earliest_number_us
        with np.errstate(invalid="ignore"):
            far = np.abs(estimate) >= BEYOND
            outcome[fine & np.where(far, estimate < 0, us < earliest)] = TOO_EARLY
            outcome[fine & np.where(far, estimate > 0, us > self.latest_us)] = TOO_LATE
        return Times(us, outcome, estimate, times.unit)

    def _refuse_numbers(self, column: pa.Array) -> None:
        """Raise InputError where the first time of the file is a number."""
        present = column.drop_null()
        if pa.types.is_string(column.type):
            present = present.filter(pc.not_equal(present, ""))
        if not len(present):
            return
        text = pc.cast(present, pa.string())[0].as_py()
        if not re.fullmatch(NUMBER.strip("^$"), text, re.ASCII):
            return
        guesses = [
            f"{text} looks like {unit} ({_day(us)})"
            for unit, factor in MICROSECONDS.items()
            if plausible(us := float(text) * factor, self.latest_us)
        ]
        guess = guesses[0] if guesses else f"{text} looks like none of them"
        raise InputError(
            "--unit", None, f"the timestamps are numbers; expected s, ms, us or ns: {guess}"
        )

    def _all_failed(self, column: pa.Array, times: Times) -> InputError:
        present = np.flatnonzero(times.outcome != MISSING)
        if not len(present):
            return InputError(
                "timestamp",
                None,
                f"column {self.name} is empty in all of the first {len(column)} rows",
            )
        row = int(present[0])
        value = cell_value(column[row])
        if times.unit is not None:
            problem = f"timestamp {_bare(value)}{self._problem(times, row)}"
            return InputError(
                "--unit", times.unit, f"{problem} (no row of the first block is better)"
            )
        problem = self._problem(times, row).removeprefix(":").strip()
        return InputError("timestamp", value, f"{problem} (no row of the first block is better)")

    def _problem(self, times: Times, row: int) -> str:
        outcome, estimate, unit = times.outcome[row], float(times.estimate_us[row]), times.unit
        if outcome == MISSING:
            return " is missing"
        if outcome == NO_OFFSET:
            return ": timestamp without UTC offset in a column that has them; give --timezone"
        if outcome == NO_MILLISECONDS:
            return ": the milliseconds to be added to it are not a number"
        if outcome == UNREADABLE:
            if self._format is not None:
                return f": expected {self._format}"
            return (
                f": {EXAMPLE}, or give --time-format"
                if unit is None
                else f": expected a number of {unit}"
            )
        if outcome == TOO_EARLY:
            if unit is None:
                return " is before 1970"
            return f" {too_early(estimate / MICROSECONDS[unit], unit, self.latest_us)}"
        if estimate < self.latest_us + US_A_YEAR:
            return f" is more than {MAX_FUTURE_SECONDS} s in the future"
        year = f"is in the year {int(1970 + estimate / US_A_YEAR)}"
        if unit is None:
            return f" {year}"
        fitting = [
            other
            for other, factor in MICROSECONDS.items()
            if plausible(estimate / MICROSECONDS[unit] * factor, self.latest_us)
        ]
        return f" as {unit} {year}" + (f"; is the unit {fitting[0]}?" if fitting else "")


def check_timezone(name: str) -> None:
    if re.fullmatch(r"[+-]([01]\d|2[0-3]):[0-5]\d", name, re.ASCII):
        return
    try:
        ZoneInfo(name)
        pc.assume_timezone(pa.array([0], pa.timestamp("us")), name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise InputError(
            "--timezone", name, "expected a time zone such as Europe/Berlin or +02:00"
        ) from None


def _bare(value: object) -> str:
    """`value` for a message; quoted unless it is a number."""
    if isinstance(value, str) and not re.fullmatch(NUMBER.strip("^$"), value[:40], re.ASCII):
        return shown(value)
    return str(value)[:40]


def _day(us: float) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).date().isoformat()
