"""The value of an event: what a conversion brought, and what a return took back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import orjson

from recsys.config.attribution import AttributionSettings, Touch
from recsys.events.times import HOUR_US

MAX_AMOUNT = 1e12  # a larger one is taken for a mistake: the event has no value
_PROPERTIES = "properties."


class EventValue(NamedTuple):
    """What one event is worth."""

    amount: float  # of a return, and of a conversion that says so itself, negative
    currency: str  # ISO 4217; empty where nothing names one
    is_return: bool


@dataclass(frozen=True, slots=True)
class ConversionRules:
    """`[attribution]`, as attribution and experiments apply it."""

    types: frozenset[str]  # of events that are conversions
    returns: frozenset[str]  # of events that take one back
    value: str = "value"  # the field that holds it: 'value', 'properties.<name>' or '' (none)
    currency: str = ""
    window_us: int = 24 * HOUR_US
    touch: Touch = "last"

    @classmethod
    def of(cls, settings: AttributionSettings) -> Self:
        return cls(
            types=frozenset(settings.types),
            returns=frozenset(settings.returns),
            value=settings.value,
            currency=settings.currency,
            window_us=round(settings.window_hours * HOUR_US),
            touch=settings.touch,
        )

    @property
    def all_types(self) -> list[str]:
        """Types of conversions and of returns, sorted."""
        return sorted(self.types | self.returns)

    def event_value(
        self, event_type: str, value: float | None, properties: str | None
    ) -> EventValue | None:
        """What an event is worth; None where it is neither a conversion nor a return.

        `properties` is a JSON object's text, as events hold it. Its `currency` goes before the
        configured one. An event without a value, or with one beyond MAX_AMOUNT, is worth 0.

        >>> rules = ConversionRules(frozenset({"purchase"}), frozenset({"refund"}), currency="EUR")
        >>> rules.event_value("purchase", 12.5, None)
        EventValue(amount=12.5, currency='EUR', is_return=False)
        >>> rules.event_value("refund", 12.5, '{"currency": "USD"}')
        EventValue(amount=-12.5, currency='USD', is_return=True)
        >>> rules.event_value("view", 1.0, None) is None
        True
        """
        is_return = event_type in self.returns
        if not is_return and event_type not in self.types:
            return None
        named = orjson.loads(properties) if properties else {}
        given = value
        if self.value.startswith(_PROPERTIES):
            given = _number(named.get(self.value.removeprefix(_PROPERTIES)))
        amount = given if given is not None and self.value else 0.0
        if not abs(amount) <= MAX_AMOUNT:
            amount = 0.0
        return EventValue(
            -abs(amount) if is_return else amount,
            _currency(named.get("currency")) or self.currency,
            is_return,
        )


def _number(value: object) -> float | None:
    """The number that a property is or spells; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _currency(value: object) -> str:
    """The code of a currency, as it is written in configuration; empty where it is none."""
    text = value.strip().upper() if isinstance(value, str) else ""
    return text if len(text) == 3 and text.isascii() and text.isalpha() else ""
