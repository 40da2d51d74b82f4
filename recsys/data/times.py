"""Moments as whole microseconds since 1970, UTC, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 of an aware moment.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    1000005
    """
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(time_us: int) -> datetime:
    """The moment of so many microseconds since 1970, in UTC.

    >>> from_us(1_000_005).isoformat()
    '1970-01-01T00:00:01.000005+00:00'
    """
    return EPOCH + timedelta(microseconds=time_us)


def rfc3339(time_us: int | None) -> str | None:
    """
    >>> rfc3339(1592955233000001)
    '2020-06-23T23:33:53.000001Z'
    """
    if time_us is None:
        return None
    return from_us(time_us).isoformat(timespec="microseconds").replace("+00:00", "Z")
