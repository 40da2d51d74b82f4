"""What pages take from the query string: filters, sort order, cursor, and the range of time shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from flask import request, url_for

from recsys.errors import InputError
from recsys.events.times import DAY_US, EPOCH, HOUR_US, to_us

PAGE_ROWS = 25
MAX_TEXT = 256


def choice(name: str, known: Collection[str], default: str | None = None) -> str | None:
    """A parameter that is one of `known`; `default` where it is absent. Raises InputError."""
    given = request.args.get(name, "")
    if not given:
        return default
    if given not in known:
        raise InputError(name, given, f"expected one of {', '.join(sorted(known))}")
    return given


def words(name: str) -> str | None:
    """A parameter of free text; None where it is absent. Raises InputError where it is too long."""
    given = request.args.get(name, "").strip()
    if len(given) > MAX_TEXT:
        raise InputError(name, given, f"expected {MAX_TEXT} characters at most")
    return given or None


def with_query(**changes: str | None) -> str:
    """This page's address with some parameters changed; None takes one away."""
    kept: dict[str, str | None] = {**request.args.to_dict(), **changes}
    # Not by url_for: a parameter may have the name of one of its own, such as endpoint or _method.
    page = url_for(request.endpoint or "admin.home", **(request.view_args or {}))
    query = urlencode({name: value for name, value in kept.items() if value is not None})
    return f"{page}?{query}" if query else page


def pages(next_cursor: str | None) -> dict[str, str | None]:
    """Addresses of the next and the first page of a list, where there are such."""
    return {
        "next": with_query(cursor=next_cursor) if next_cursor else None,
        "first": with_query(cursor=None) if "cursor" in request.args else None,
    }


RANGE = ("range", "from", "to")  # the parameters of a time range
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
    def before(self) -> TimeRange:
        """The time of the same length that ended where this one begins."""
        return TimeRange(self.name, 2 * self.since_us - self.until_us, self.since_us)

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
        if query.get("range"):
            raise InputError("range", query["range"], "expected it, or from and to, not both")
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
