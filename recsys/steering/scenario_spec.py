"""A scenario: how one place of the shop (home, product page, cart, mail) is answered.

The dataclasses are the JSON that REST, the command line and the database hold; what is not given has its
default, and an unknown name is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from recsys.config.exclude_seen import MAX_EXCLUDE_SEEN, check_exclude_seen
from recsys.errors import InputError, unknown
from recsys.ingest.cells import BLANKS
from recsys.ingest.event_body import id_text
from recsys.text_rules import MAX_ID_LENGTH, text_problem

Logic = Literal[
    "for_you",
    "similar",
    "next",
    "bought_together",
    "trending",
    "popular",
    "latest",
    "because_you_viewed",
    "top_categories",
]
Fallback = Literal["popular", "trending", "latest", "none"]

MAX_K = 1_000
MAX_RULES = 16  # boosts of a scenario
MAX_PINS = 50
MAX_ROWS = 20
MAX_EXCLUDED = 1_000
MAX_FACTOR = 1_000
MAX_EXPLORED = 0.3
MAX_TITLE = 120
# What a row's title may name, by its logic: the item it is about, or its category.
PLACEHOLDERS: Mapping[Logic, tuple[str, ...]] = {
    "similar": ("{item}",),
    "next": ("{item}",),
    "bought_together": ("{item}",),
    "because_you_viewed": ("{item}",),
    "top_categories": ("{category}",),
}
_BRACED = re.compile(r"\{[^{}]*\}?")
MAX_EXPRESSION = 2_000
_STRICT = ConfigDict(extra="forbid")


def _text(limit: int) -> AfterValidator:
    def check(value: str) -> str:
        if problem := text_problem(value, limit):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _item_id(value: object) -> object:
    """`value` as the ids of events are read: whole numbers are text, blanks around it are not of it."""
    text = id_text(value)
    return text.strip(BLANKS) if isinstance(text, str) else text


_Id = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_LENGTH),
    _text(MAX_ID_LENGTH),
    BeforeValidator(_item_id),
]
_Rule = Annotated[str, Field(min_length=3, max_length=MAX_EXPRESSION), _text(MAX_EXPRESSION)]
_K = Annotated[int, Field(ge=1, le=MAX_K)]
_SeenTypes = Annotated[
    str, Field(min_length=1, max_length=MAX_EXCLUDE_SEEN), AfterValidator(check_exclude_seen)
]


@dataclass(frozen=True)
class BoostRule:
    """Items that meet `when` have their score multiplied by `factor`."""

    when: _Rule
    factor: Annotated[float, Field(ge=0, le=MAX_FACTOR, allow_inf_nan=False)]

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class Pin:
    """An item that stands at a position, as long as it may be shown."""

    item_id: _Id
    position: Annotated[int, Field(ge=1, le=MAX_K, description="1 is the first")]

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class Promote:
    """At least `share` of the positions, from the first on, go to items that meet `when`."""

    when: _Rule
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class Rotation:
    """An item shown `shown` times to a visitor without a click sinks for `hours`."""

    shown: Annotated[int, Field(ge=1, le=100)]
    hours: Annotated[float, Field(gt=0, le=8_760, allow_inf_nan=False)]

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class Explore:
    """Each position shows, with the chance `share`, a new or uncertain item instead of its own."""

    share: Annotated[float, Field(gt=0, le=MAX_EXPLORED, allow_inf_nan=False)]

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class Row:
    """Titled rows of a page: each of `rows` last viewed items, or top categories, makes one.

    Other logics make one row. In the title, {item} stands for the title of the item that a row of similar,
    next, bought_together or because_you_viewed is about, {category} for the category of one of top_categories.
    """

    logic: Logic
    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE), _text(MAX_TITLE)]
    k: _K = 10
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 1

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class ScenarioSpec:
    """One version of a scenario. Raises InputError where its parts do not go together.

    >>> ScenarioSpec(logic="similar", k=8).fallback
    'popular'
    """

    logic: Annotated[Logic, Field(description="What ranks the items")] = "for_you"
    k: Annotated[
        _K | None,
        Field(description="Number of items; null: as many as the request asks for"),
    ] = None
    exclude_seen: Annotated[
        _SeenTypes | None,
        Field(description="Event types whose items are left out; null: as the request says"),
    ] = None
    exclude_items: Annotated[
        tuple[_Id, ...],
        Field(max_length=MAX_EXCLUDED, description="Items that are never shown here"),
    ] = ()
    filter: Annotated[
        _Rule | None, Field(description="What every item must meet, such as price<50")
    ] = None
    boosts: Annotated[
        tuple[BoostRule, ...],
        Field(max_length=MAX_RULES, description="What multiplies the scores of some items"),
    ] = ()
    diversity: Annotated[
        float,
        Field(
            ge=0, le=1, allow_inf_nan=False, description="0: by score alone; 1: as varied as can be"
        ),
    ] = 0.0
    max_per_category: Annotated[
        int | None, Field(ge=1, le=MAX_K, description="At most so many items of one category")
    ] = None
    pins: Annotated[
        tuple[Pin, ...], Field(max_length=MAX_PINS, description="Items at fixed positions")
    ] = ()
    promote: Annotated[
        Promote | None, Field(description="What has at least a share of the positions")
    ] = None
    rotation: Annotated[
        Rotation | None, Field(description="When an item shown without a click sinks, and how long")
    ] = None
    explore: Annotated[
        Explore | None, Field(description="The share of positions that try new or uncertain items")
    ] = None
    score_by: Annotated[
        _Rule | None, Field(description="What orders the items, such as chance * item.margin")
    ] = None
    fallback: Annotated[
        Fallback, Field(description="What fills the list where the logic gives too little")
    ] = "popular"
    rows: Annotated[
        tuple[Row, ...],
        Field(
            max_length=MAX_ROWS, description="Titled lists one below another, instead of one list"
        ),
    ] = ()

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        places: set[int] = set()
        items: set[str] = set()
        for index, pin in enumerate(self.pins):
            where = f"pins[{index}]"
            if pin.position in places:
                raise InputError(f"{where}.position", pin.position, "expected one pin a position")
            if self.k is not None and pin.position > self.k:
                raise InputError(f"{where}.position", pin.position, f"expected 1 to k, {self.k}")
            if pin.item_id in items:
                raise InputError(f"{where}.item_id", pin.item_id, "expected each item once")
            places.add(pin.position)
            items.add(pin.item_id)
        if not self.rows:
            return
        for name in ("pins", "explore", "k"):
            if getattr(self, name):
                expected = "expected none beside rows, each of which is a list of its own"
                raise InputError(name, _plain(getattr(self, name)), expected)
        if self.logic != "for_you":
            raise InputError("logic", self.logic, "expected none beside rows, which have their own")
        if sum(row.k * row.rows for row in self.rows) > MAX_K:
            raise InputError("rows", len(self.rows), f"expected at most {MAX_K:,} items in all")

    @cached_property
    def plain(self) -> dict[str, Any]:
        """JSON-ready; what has its default is left out.

        >>> ScenarioSpec(logic="popular", pins=(Pin("i1", 1),)).plain
        {'logic': 'popular', 'pins': [{'item_id': 'i1', 'position': 1}]}
        """
        whole: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return {name: value for name, value in whole.items() if value != _DEFAULTS[name]}


def check_titles(spec: ScenarioSpec) -> None:
    """Raise InputError for a title that names what its row's logic has none of.

    Of what is written, not of what is read: earlier releases stored any title.

    >>> check_titles(ScenarioSpec(rows=(Row("similar", "Like {item}"), Row("popular", "Like {item}"))))
    Traceback (most recent call last):
    recsys.errors.InputError: rows[1].title = '{item}': expected a placeholder of a popular row; there is none
    """
    for index, row in enumerate(spec.rows):
        known = PLACEHOLDERS.get(row.logic, ())
        for placeholder in _BRACED.findall(row.title):
            if placeholder not in known:
                expected = f"a placeholder of a {row.logic} row"
                raise unknown(f"rows[{index}].title", placeholder, expected, known)


def read_spec(given: Mapping[str, Any]) -> ScenarioSpec:
    """A scenario from JSON. Raises InputError, of the first field that is not as expected.

    >>> read_spec({"logic": "popular", "k": 0})
    Traceback (most recent call last):
    recsys.errors.InputError: k = 0: Input should be greater than or equal to 1
    """
    try:
        return _ADAPTER.validate_python(given)
    except ValidationError as error:
        raise first_problem(error, "scenario") from None


def first_problem(error: ValidationError, whole: str) -> InputError:
    """The first field that is not as expected; `whole` names what all the fields are of."""
    first = error.errors(include_url=False, include_context=False)[0]
    text = ""
    for part in first["loc"]:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:80]}"
    expected = str(first["msg"]).removeprefix("Value error, ")
    return InputError(text.lstrip(".") or whole, first["input"], expected)


def _plain(value: object) -> object:
    return len(value) if isinstance(value, tuple) else value


_ADAPTER = TypeAdapter(ScenarioSpec)
_DEFAULTS: dict[str, Any] = _ADAPTER.dump_python(ScenarioSpec(), mode="json")
