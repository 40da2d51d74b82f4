"""Cron lines as in every crontab (crontab(5)): what their five fields mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
EVERY_DAY, EVERY_WEEKDAY = frozenset(range(1, 32)), frozenset(range(7))
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Bounds(NamedTuple):
    """What one field may hold."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()  # of first, first + 1, …

    def expected(self) -> str:
        named = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.first} to {self.last}{named}"


FIELDS = (
    Bounds("minute", 0, 59),
    Bounds("hour", 0, 23),
    Bounds("day of month", 1, 31),
    Bounds("month", 1, 12, MONTHS),
    Bounds("day of week", 0, 7, WEEKDAYS),  # 0 and 7 are Sunday
)


@dataclass(frozen=True)
class Crontab:
    """The times of one line, in wall-clock time.

    >>> sorted(Crontab.parse("0 3 * * fri-sun").weekdays)  # Sunday is 0
    [0, 5, 6]
    >>> Crontab.parse("30 2 1 * mon").either_day  # the 1st, and Mondays
    True
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0..6 from Sunday
    either_day: bool  # one of `days` or of `weekdays` is enough: both fields are restricted
    fixed: bool  # hour and minute are named: clocks that change neither skip nor repeat such a time

    @classmethod
    def parse(cls, line: str) -> Crontab:
        """Raises ValueError naming the field and what was expected."""
        fields = NICKNAMES.get(line.strip().lower(), line).lower().split()
        if len(fields) != len(FIELDS):
            raise ValueError(f"five fields or one of {', '.join(NICKNAMES)}, not {len(fields)}")
        minutes, hours, days, months, weekdays = (
            _values(text, bounds) for text, bounds in zip(fields, FIELDS, strict=True)
        )
        starred = [text.startswith("*") for text in fields]
        return cls(
            minutes,
            hours,
            days,
            months,
            frozenset(day % 7 for day in weekdays),
            either_day=not (starred[2] or starred[4]),
            fixed=not (starred[0] or starred[1]),
        )


def _values(text: str, bounds: Bounds) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        if span == "*":
            first, last = bounds.first, bounds.last
        else:
            low, dash, high = span.partition("-")
            first = _number(low, bounds)
            last = _number(high, bounds) if dash else bounds.last if slash else first
            if dash and last == 0 and bounds.names is WEEKDAYS:
                last = 7  # a range that ends on Sunday
        if last < first:
            raise ValueError(f"{bounds.name}: {span!r} ends before it begins; list both parts")
        step = 1
        if slash:
            if not (step_text.isascii() and step_text.isdecimal() and len(step_text) < 4):
                raise ValueError(f"{bounds.name}: the step of {part!r} is no whole number")
            step = int(step_text)
            if not 1 <= step <= max(1, last - first):
                raise ValueError(f"{bounds.name}: the step of {part!r} leads out of its range")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, bounds: Bounds) -> int:
    if text in bounds.names:
        return bounds.first + bounds.names.index(text)
    if text.isascii() and text.isdecimal() and len(text) < 4:
        number = int(text)
        if bounds.first <= number <= bounds.last:
            return number
    raise ValueError(f"{bounds.name}: {text!r} is not {bounds.expected()}")
