"""The stretch of time that a page shows, from its query string: `range=7d`, or `from` and `to`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from recsys.errors import InputError
from recsys.events.times import DAY_US, EPOCH, HOUR_US, to_us

RANGES = {"24h": DAY_US, "7d": 7 * DAY_US, "30d": 30 * DAY_US, "90d": 90 * DAY_US}
DEFAULT = "7d"
MAX_DAYS = 400
LAST = datetime(3000, 1, 1, tzinfo=UTC)  # so that no sum leaves the calendar


@dataclass(frozen=True)
class TimeRange:
    """[since_us, until_us), and the length of the steps to show it in."""

    name: str  # a key of RANGES, or 'custom'
    since_us: int
    until_us: int

    @property
    def step_us(self) -> int:
        """Five minutes up to a day, hours up to a fortnight, then days."""
        length = self.until_us - self.since_us
        if length <= DAY_US + HOUR_US:
            return HOUR_US // 12
        return HOUR_US if length <= 14 * DAY_US else DAY_US

    @property
    def query(self) -> dict[str, str]:
        """The parameters that ask for it again."""
        if self.name != "custom":
            return {"range": self.name}
        return {"from": _day(self.since_us), "to": _day(self.until_us - 1)}

    @property
    def first_day(self) -> str:
        return _day(self.since_us)

    @property
    def last_day(self) -> str:
        return _day(self.until_us - 1)

    def steps(self, step_us: int | None = None) -> list[int]:
        """Where each step begins."""
        step = step_us or self.step_us
        return list(range(self.since_us - self.since_us % step, self.until_us, step))


def time_range(query: Mapping[str, str], now_us: int, default: str = DEFAULT) -> TimeRange:
    """Raises InputError for a range that is none. Days are UTC days, `to` included.

    >>> time_range({"from": "2025-01-01", "to": "2025-01-02"}, 0).step_us == HOUR_US
    True
    """
    if "from" in query or "to" in query:
        since = day_start(query, "from")
        until = day_start(query, "to") + DAY_US
        if not 0 < until - since <= MAX_DAYS * DAY_US:
            raise InputError("to", query["to"], f"expected a day after `from`, {MAX_DAYS} at most")
        return TimeRange("custom", since, until)
    name = query.get("range", default)
    if name not in RANGES:
        raise InputError("range", name, f"expected one of {', '.join(RANGES)}")
    return TimeRange(name, now_us - RANGES[name], now_us)


def day_start(query: Mapping[str, str], name: str) -> int:
    """The first µs of the UTC day that a parameter names. Raises InputError."""
    text = query.get(name, "")
    try:
        moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        moment = EPOCH
    if not EPOCH < moment < LAST:
        raise InputError(name, text, "expected a day such as 2025-01-31")
    return to_us(moment)


def _day(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d")
