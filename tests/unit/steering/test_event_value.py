"""What conversions and returns are worth."""

from __future__ import annotations

import pytest

from recsys.config.attribution import AttributionSettings
from recsys.errors import ConfigError
from recsys.steering.event_value import MAX_AMOUNT, ConversionRules, EventValue


@pytest.mark.parametrize(
    ("field", "event", "expected"),
    [
        ("value", ("purchase", 3.0, None), (3.0, "EUR", False)),
        ("value", ("purchase", None, '{"total": 9}'), (0.0, "EUR", False)),
        ("value", ("purchase", -3.0, None), (-3.0, "EUR", False)),  # quantities below zero
        ("value", ("refund", 3.0, None), (-3.0, "EUR", True)),
        ("value", ("refund", -3.0, None), (-3.0, "EUR", True)),  # subtracts either way
        ("value", ("purchase", 3.0, '{"currency": " usd"}'), (3.0, "USD", False)),
        ("value", ("purchase", 3.0, '{"currency": "euros"}'), (3.0, "EUR", False)),
        ("value", ("purchase", MAX_AMOUNT * 2, None), (0.0, "EUR", False)),
        ("value", ("view", 3.0, None), None),
        ("properties.margin", ("purchase", 3.0, '{"margin": "1.25"}'), (1.25, "EUR", False)),
        ("properties.margin", ("purchase", 3.0, '{"margin": true}'), (0.0, "EUR", False)),
        ("properties.margin", ("purchase", 3.0, '{"margin": "1e999"}'), (0.0, "EUR", False)),
        ("properties.margin", ("purchase", 3.0, None), (0.0, "EUR", False)),
        ("", ("purchase", 3.0, None), (0.0, "EUR", False)),  # counted alone
    ],
)
def test_value_of_an_event(
    field: str,
    event: tuple[str, float | None, str | None],
    expected: tuple[float, str, bool] | None,
) -> None:
    rules = ConversionRules.of(AttributionSettings(value=field, currency="EUR"))
    assert rules.event_value(*event) == (None if expected is None else EventValue(*expected))


def test_a_type_cannot_both_add_and_subtract() -> None:
    with pytest.raises(ConfigError, match=r"attribution\.returns.*'sale'"):
        AttributionSettings(types=("sale",), returns=("refund", "sale"))
