"""[attribution]: which events are conversions, what they are worth, and which answers they count for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from recsys.config.exclude_seen import BUYING
from recsys.config.key_types import Section, check_type
from recsys.errors import ConfigError

Touch = Literal["last", "any"]
EventTypes = Annotated[tuple[Annotated[str, AfterValidator(check_type)], ...], Field(max_length=64)]
# "value", a number among an event's properties, or nothing.
VALUE_PATH = r"^(value|properties\.[^.\[\]\x00-\x1f]{1,64})?$"
# What logs call taking something back.
RETURNING = ("refund", "Refund", "refunded", "return", "returned", "Order Refunded")


class AttributionSettings(Section):
    window_hours: float = Field(24.0, gt=0, le=8_760)
    touch: Touch = "last"
    types: EventTypes = BUYING
    returns: EventTypes = RETURNING
    value: str = Field("value", pattern=VALUE_PATH)
    currency: str = Field("", pattern=r"^([A-Z]{3})?$")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Raises ConfigError naming an event type that would both add and subtract."""
        if both := sorted(set(self.types) & set(self.returns)):
            expected = "expected types that are not in attribution.types"
            raise ConfigError("attribution.returns", both[0], expected)
        return self
