"""The time column of an external table: moments as it writes them, and back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from recsys.events.times import MICROSECONDS
from recsys.storage.external.mapped_column import NUMBER_KINDS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRITTEN = len("2024-05-01T12:00:00")


@dataclass(frozen=True)
class TimeColumn:
    """Arithmetic of one column's values."""

    kind: str  # of `column_kinds`
    unit: str | None  # of numbers
    timezone: str | None  # of values without one; None: UTC

    def micros(self, value: object) -> int | None:
        """A time as a driver gives it -> µs since 1970, UTC; None where it is none."""
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
            except ValueError:
                return None
        if isinstance(value, datetime):
            if value.tzinfo is None:
                zone = UTC if self.kind == "aware" else self._zone()
                value = value.replace(tzinfo=zone).astimezone(UTC)
            return (value - EPOCH) // timedelta(microseconds=1)
        if isinstance(value, date):
            midnight = datetime(value.year, value.month, value.day, tzinfo=self._zone())
            return (midnight.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
        if isinstance(value, int) and self.unit is not None:
            return value // 1_000 if self.unit == "ns" else value * int(MICROSECONDS[self.unit])
        if isinstance(value, float | Decimal) and self.unit is not None:
            return round(float(value) * MICROSECONDS[self.unit])
        return None

    def at(self, us: int) -> object:
        """µs since 1970, UTC, as a value of the time column's own type, as `literal` takes it."""
        if self.kind in NUMBER_KINDS:
            assert self.unit is not None
            if self.kind == "float":
                return us / MICROSECONDS[self.unit]
            return us * 1_000 if self.unit == "ns" else us // int(MICROSECONDS[self.unit])
        moment = EPOCH + timedelta(microseconds=us)
        if self.kind == "aware":
            return moment
        local = moment.astimezone(self._zone()).replace(tzinfo=None)
        if self.kind == "date":
            return local.date()
        return local if self.kind == "naive" else local.isoformat(timespec="seconds")

    def not_before(self, us: int) -> object:
        """The first value of the time column, as `at` gives it, that is not before `us`."""
        value = self.at(us)
        at_us = None if isinstance(value, str) else self.micros(value)
        if at_us is None or at_us >= us:
            return value
        if isinstance(value, int):
            return value + 1
        return (
            value + timedelta(days=1) if isinstance(value, date) and self.kind == "date" else value
        )

    def earlier(self, value: object, seconds: float) -> object:
        """A time of the column's own type, `seconds` before `value`."""
        if self.kind in NUMBER_KINDS:
            assert self.unit is not None
            shift = seconds * 1e6 / MICROSECONDS[self.unit]
            if self.kind == "float":
                return float(str(value)) - shift
            return int(Decimal(str(value))) - int(shift)
        if self.kind == "text":
            written = str(value)
            try:
                moment = datetime.fromisoformat(written[:_WRITTEN])
            except ValueError:
                return ""
            separator = written[10:11] or "T"
            return (moment - timedelta(seconds=seconds)).isoformat(
                sep=separator, timespec="seconds"
            )
        assert isinstance(value, date)
        if self.kind == "date":
            return value - timedelta(days=-(-seconds // 86_400))
        return value - timedelta(seconds=seconds)

    def _zone(self) -> Any:
        if self.timezone is None:
            return UTC
        if self.timezone[:1] in "+-":
            return datetime.fromisoformat(f"2000-01-01T00:00:00{self.timezone}").tzinfo
        return ZoneInfo(self.timezone)
