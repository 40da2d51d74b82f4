"""What is asked for, what is considered, and what goes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from recsys.config.exclude_seen import AUTO
from recsys.events.fields import Event
from recsys.steering.expressions.expression import Expression
from recsys.steering.expressions.reading import ItemCondition
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.entities.item_rows import StoredItem

# Why an item of an answer is not of the model's ranking.
FALLBACKS = ("database", "no_model", "no_history", "unknown_items", "too_few")


@dataclass(frozen=True)
class Boost:
    """Items that meet `condition` have their score multiplied."""

    condition: ItemCondition
    factor: float


@dataclass(frozen=True)
class ScenarioRules:
    """The rules of a scenario. One that names what no item has any more meets nothing."""

    conditions: tuple[ItemCondition, ...] = ()  # all of them must be met
    boosts: tuple[Boost, ...] = ()
    promoted: ItemCondition | None = None  # what is to have a share of the positions
    score: Expression | None = None  # what candidates are ordered by; None: by their chance alone


@dataclass(frozen=True)
class Request:
    """What is asked for. `events` come after what is stored of the user or session."""

    user_id: str | None = None
    session_id: str | None = None
    events: tuple[Event, ...] = ()
    k: int = 20
    exclude_seen: str = AUTO  # event types by commas, 'all', 'none' or 'auto'
    learned_seen: bool = (
        False  # whether a version has put what it has learned in the place of 'auto'
    )
    exclude_items: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()  # any of them; empty = all
    candidates: tuple[str, ...] = ()  # rank these alone; empty = the catalogue
    conditions: tuple[ItemCondition, ...] = ()  # all of them must be met
    boosts: tuple[Boost, ...] = ()
    max_per_category: int | None = None
    for_items: tuple[str, ...] = ()  # what the page is about; not in the answer
    scenario: str | None = None  # of a stored scenario, or a label for reports
    scenario_spec: ScenarioSpec | None = field(default=None, hash=False)  # what it says, if stored
    scenario_version: int | None = None
    scenario_rules: ScenarioRules = ScenarioRules()
    left_open: frozenset[str] = frozenset()  # of k and exclude_seen: what a scenario may decide
    page_of: str | None = None  # the answer this one goes on from
    shown_before: tuple[str, ...] = ()  # what that one and those before it showed
    explain: bool = False
    from_page: bool = False  # asked with a key that anyone can read
    as_of_us: int | None = (
        None  # stored events after it are left out of the history; None: all count
    )

    def having(self, **changes: Any) -> Request:
        """`dataclasses.replace` for every answer's way: names are not checked, and it takes a tenth of the time."""
        found = object.__new__(Request)
        found.__dict__.update(self.__dict__, **changes)
        return found

    @property
    def expressions(self) -> list[Expression]:
        """Those of filters and boosts, and of the scenario's rules."""
        rules = self.scenario_rules
        boosts = (boost.condition for boost in (*self.boosts, *rules.boosts))
        filters = (*self.conditions, *rules.conditions)
        found = (*filters, *boosts, rules.promoted, rules.score)
        return [one for one in found if isinstance(one, Expression)]


class InArm(NamedTuple):
    """An experiment that whoever asks is in. `counted`: False of who tests it."""

    experiment: str
    arm: str
    counted: bool


class ShadowArm(NamedTuple):
    """An arm whose answer is logged and not shown: what it would be asked for."""

    experiment: str
    arm: str
    request: Request
    model_version: str | None  # that would answer; None: the usual one


class Candidate(NamedTuple):
    """An item that may be answered. A tuple: a request may look at thousands."""

    item_id: str
    score: float
    source: str  # the component that ranked it, or where else it came from
    propensity: float | None = None  # the chance to stand where it does, of an answer that explores


@dataclass(frozen=True)
class Reason:
    """A past event that moved an item up, and the share of the item's score that rests on it."""

    item_id: str
    event_id: str
    timestamp_us: int
    share: float  # 0..1


class RankedItem(NamedTuple):
    """An item of an answer. A tuple: an answer makes dozens."""

    item_id: str
    rank: int  # 1-based
    score: float  # comparable within one answer and one source only
    source: str
    item: StoredItem | None
    reason: tuple[Reason, ...] | None = None  # None where no explanation was asked for
    propensity: float | None = None  # the chance it had to stand here, where the scenario explores


@dataclass(frozen=True)
class AnswerRow:
    """A titled part of an answer, whose items are among the answer's."""

    title: str
    logic: str
    item_ids: tuple[str, ...]
    about_item: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class SeenLeftOut:
    """The event types whose items an answer leaves out, and why it is these."""

    exclude_seen: str  # event types by commas, 'all' or 'none'
    why: (
        str | None
    )  # what the version has learned; None: the request, scenario or configuration says so


@dataclass(frozen=True)
class Answer:
    """What goes out. `degraded` says why the answer is less than it should be, or is None."""

    recommendation_id: str
    user_id: str | None
    session_id: str | None
    model_version: str | None
    generated_at_us: int
    sequence_length: int
    last_event_id: str | None
    degraded: str | None
    items: list[RankedItem] = field(default_factory=list)
    arm: str | None = None  # 'champion', 'control', 'experiment' or 'page'; None without a model
    fallback: str | None = None  # why some item is not of the model's ranking: one of FALLBACKS
    scenario: str | None = None
    scenario_version: int | None = None
    page_of: str | None = None
    experiments: tuple[InArm, ...] = ()
    shadows: tuple[ShadowArm, ...] = ()
    rows: tuple[AnswerRow, ...] | None = None  # None: the scenario has none
    seen: SeenLeftOut | None = None  # None where no explanation was asked for


@dataclass(frozen=True)
class FilteredItem:
    """An item that would be among the best k, and why the filters leave it out."""

    item_id: str
    rank: int  # that it would have, 1-based
    source: str
    why: str
    item: StoredItem | None
