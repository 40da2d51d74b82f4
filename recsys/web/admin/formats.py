"""How figures and times are shown: with separators and units, times for the viewer's own zone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from recsys.events.times import from_us, rfc3339

NONE = "–"
# Currencies without a smaller unit (ISO 4217).
WHOLE_CURRENCIES = frozenset(
    (
        *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI"),
        *("VND", "VUV", "XAF", "XOF", "XPF"),
    )
)


def number(value: float | None) -> str:
    """
    >>> number(1234567), number(0.5), number(None)
    ('1,234,567', '0.5', '–')
    """
    if value is None:
        return NONE
    whole = isinstance(value, int) or abs(value) >= 1_000
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def compact(value: float | None) -> str:
    """
    >>> compact(999), compact(12_345), compact(10_200_000)
    ('999', '12.3k', '10.2M')
    """
    if value is None:
        return NONE
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if sign == 'k' else limit):.1f}{sign}"
    return number(value)


def money(value: float | None, currency: str = "") -> str:
    """An amount, with the code of its currency where that is configured.

    >>> money(1234.5, "EUR"), money(-1980.0, "JPY"), money(3), money(None, "EUR")
    ('1,234.50 EUR', '-1,980 JPY', '3.00', '–')
    """
    if value is None:
        return NONE
    amount = f"{value:,.{0 if currency in WHOLE_CURRENCIES else 2}f}"
    return f"{amount} {currency}".rstrip()


def percent(share: float | None, digits: int = 1) -> str:
    """
    >>> percent(0.1234), percent(-0.001, 2)
    ('12.3%', '-0.10%')
    """
    return NONE if share is None else f"{share * 100:.{digits}f}%"


def points(difference: float | None, digits: int = 2) -> str:
    """A difference of two shares, in percentage points.

    >>> points(0.021)
    '+2.10 pp'
    """
    return NONE if difference is None else f"{difference * 100:+.{digits}f} pp"


def size(count: float | None) -> str:
    """
    >>> size(1_500_000), size(900)
    ('1.4 MiB', '900 B')
    """
    if count is None:
        return NONE
    for limit, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= limit:
            return f"{count / limit:,.1f} {unit}"
    return f"{count:,.0f} B"


def duration(seconds: float | None) -> str:
    """
    >>> duration(0.0042), duration(75), duration(90_000), duration(3 * 86_400)
    ('4.2 ms', '1 min 15 s', '1 d 1 h', '3 d')
    """
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    at = next(place for place, (length, _) in enumerate(units) if seconds >= length)
    (big, name), (small, lesser) = units[at], units[at + 1]
    rest = int(seconds % big // small)
    return f"{int(seconds // big)} {name}" + (f" {rest} {lesser}" if rest else "")


def when(time_us: int | None) -> str | Markup:
    """A moment: in UTC, until the page's script shows it in the viewer's zone."""
    if time_us is None:
        return NONE
    text = f"{from_us(time_us):%Y-%m-%d %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(rfc3339(time_us), text)


def ago(time_us: int | None) -> str | Markup:
    """How long ago, or how soon; the moment itself on hovering."""
    if time_us is None:
        return NONE
    seconds = time.time() - time_us / 1e6
    text = f"{duration(round(abs(seconds)))} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    text = "just now" if 0 <= seconds < 1 else text
    return Markup('<time datetime="{}" data-ago>{}</time>').format(rfc3339(time_us), text)


def days(start_us: int, end_us: int) -> Markup:
    """A stretch of time, by its days."""
    return Markup("{} – {}").format(
        *(Markup('<time datetime="{}" data-day>{}</time>').format(rfc3339(t), f"{from_us(t):%Y-%m-%d}")
          for t in (start_us, end_us))
    )  # fmt: skip


def utc_day(time_us: int) -> Markup:
    """A day that is one of UTC, whatever the viewer's zone.

    >>> str(utc_day(0))
    '<time datetime="1970-01-01T00:00:00.000000Z" data-day data-utc>1970-01-01</time>'
    """
    return Markup('<time datetime="{}" data-day data-utc>{}</time>').format(
        rfc3339(time_us), f"{from_us(time_us):%Y-%m-%d}"
    )


def metric_name(metric: str) -> str:
    """
    >>> metric_name("mrr@20"), metric_name("ndcg@10"), metric_name("recall@20")
    ('MRR@20', 'NDCG@10', 'recall@20')
    """
    name, _, depth = metric.partition("@")
    return f"{name.upper() if name in ('mrr', 'ndcg') else name}@{depth}"


def shown_json(value: Any) -> str:
    """A value of a settings table."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NONE}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
    return number(value) if isinstance(value, int | float) else str(value)


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "compact": compact,
    "percent": percent,
    "points": points,
    "size": size,
    "duration": duration,
    "when": when,
    "ago": ago,
    "days": days,
    "utc_day": utc_day,
    "plain": shown_json,
    "metric_name": metric_name,
    "rfc3339": rfc3339,
}
