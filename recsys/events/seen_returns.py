"""Whether items that a visitor has seen are shown again, as the log has it.

Legend: E events of all sequences.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.config.exclude_seen import BUYING, DEFAULT
from recsys.events.array_types import BoolArray, Float64Array, Int64Array
from recsys.events.sequences import Sequences

MIN_STEPS = 1_000  # by fewer nothing is decided
MIN_RETURNED = 0.2  # of the steps at which a visitor has seen something: one in five
MIN_LIFT = 2.0  # times what chance would give
COUNTED_EVENTS = 2_000_000  # the newest ones


@dataclass(frozen=True)
class Returns:
    """What became of the items that visitors had seen by events of one type.

    A step is a move to another item: to stay with one, say to put it into the basket, is none.
    """

    steps: int  # at which there was such an item, other than the current one
    returned: float  # share of the steps that led to one of them
    chance: float  # the same if the next item were drawn by how often each comes next
    bought: float | None  # share of those steps whose item is bought then; None: no purchases

    def shown_again(self, new_bought: float | None) -> bool | None:
        """Whether such items are worth a place in a list; None where too few steps tell.

        They are where they return often, more often than by chance, and are bought then no less often
        than items met for the first time (`new_bought`), as far as the log knows of purchases.

        >>> Returns(5_000, 0.5, 0.01, None).shown_again(None)
        True
        >>> Returns(5_000, 0.5, 0.01, bought=0.02).shown_again(0.03)
        False
        """
        if self.steps < MIN_STEPS:
            return None
        often = self.returned >= MIN_RETURNED and self.returned >= MIN_LIFT * self.chance
        if self.bought is None or new_bought is None:
            return often
        return often and self.bought >= new_bought

    def __str__(self) -> str:
        told = f"{self.returned:.1%} of {self.steps:,} steps, {self.chance:.1%} by chance"
        return told if self.bought is None else f"{told}, {self.bought:.1%} bought then"


@dataclass(frozen=True)
class SeenDefault:
    """The default of `exclude_seen` that a log asks for, and what it rests on."""

    exclude_seen: str  # event types by commas, 'all' or 'none'
    by_type: Mapping[str, Returns]
    new_bought: float | None  # share of the steps to an item never seen, which is bought then

    def said(self) -> str:
        """The decision and its reason in one sentence."""
        if self.exclude_seen == DEFAULT:
            decided = "only what was bought is left out"
        elif self.exclude_seen == "all":
            decided = "items of all earlier events are left out"
        elif self.exclude_seen == "none":
            decided = "items seen before are shown again"
        else:
            decided = f"items of earlier {self.exclude_seen.replace(',', ', ')} events are left out"
        found = "; ".join(f"{name}: {one}" for name, one in self.by_type.items())
        rule = f"shown again from {MIN_RETURNED:.0%} and {MIN_LIFT:g} times chance on"
        if self.new_bought is not None:
            rule += f", if bought as often as items met first ({self.new_bought:.1%})"
        return f"{decided}, by how often seen items come next again ({found or 'too few events'}; {rule})"


def learn_default(
    sequences: Sequences, type_names: Sequence[str], buying: Collection[str]
) -> SeenDefault:
    """Decide for each event type whether its items are shown again; `sequences` hold all types.

    Types with too few steps to tell stay as they were: what was bought is left out, all else is not.
    """
    sequences = sequences.newest(COUNTED_EVENTS)
    codes = [code for code, name in enumerate(type_names) if name in buying]
    returns, new_bought = count_returns(sequences, codes)
    by_type = {type_names[code]: found for code, found in returns.items()}
    decided = {name: found.shown_again(new_bought) for name, found in by_type.items()}
    present = {type_names[code] for code in np.unique(sequences.event_types)}
    return SeenDefault(_left_out(decided, present, set(buying)), by_type, new_bought)


def _left_out(decided: Mapping[str, bool | None], present: set[str], buying: set[str]) -> str:
    """The value of `exclude_seen`; `present`: types of the log, of which `decided` has some."""
    out = {
        name
        for name in present
        if decided.get(name) is False or (decided.get(name) is None and name in buying)
    }
    if present and out == present:
        return "all"
    if not present & buying:  # the log's word for buying is not known yet
        out |= set(BUYING)
    return DEFAULT if out == set(BUYING) else ",".join(sorted(out)) or "none"


def count_returns(
    sequences: Sequences, buying: Iterable[int]
) -> tuple[dict[int, Returns], float | None]:
    """The returns by event type code, and the share of the steps to an item never seen which is bought
    then (None: no purchases); `buying`: codes of purchases.
    """
    events, items = sequences.event_count, sequences.items.astype(np.int64)
    pair = _pairs(sequences)
    step = np.ones(events, np.bool_)
    step[1:] = items[1:] != items[:-1]
    step[sequences.offsets[:-1][sequences.lengths > 0]] = False
    at = np.flatnonzero(step)
    shares = np.bincount(items[at], minlength=int(items.max(initial=0)) + 1) / max(1, len(at))
    buys = np.isin(sequences.event_types, list(buying))
    bought = _bought_then(pair, buys) if buys.any() else None
    by_type: dict[int, Returns] = {}
    for code in np.unique(sequences.event_types).tolist():
        since = _first_of(pair, np.flatnonzero(sequences.event_types == code))
        first = np.zeros(events, np.bool_)
        first[since[since < events]] = True
        current = since[pair[at - 1]] < at  # the item that the step leaves is none of the seen ones
        seen = _before(first.astype(np.float64), sequences)[at] - current
        chance = _before(np.where(first, shares[items], 0.0), sequences)[at]
        chance -= np.where(current, shares[items[at - 1]], 0.0)
        asked = seen > 0.5
        if not asked.any():
            continue
        back = at[asked & (since[pair[at]] < at)]
        by_type[code] = Returns(
            steps=int(asked.sum()),
            returned=len(back) / int(asked.sum()),
            chance=float(chance[asked].mean()),
            bought=float(bought[back].mean()) if bought is not None and len(back) else None,
        )
    new = at[_first_of(pair, np.arange(events))[pair[at]] == at]
    return by_type, float(bought[new].mean()) if bought is not None and len(new) else None


def _pairs(sequences: Sequences) -> Int64Array:
    """The number of each event's sequence and item; (E,)."""
    owners, items = sequences.owners(), sequences.items
    order = np.lexsort((items, owners))
    new = np.ones(len(order), np.bool_)
    new[1:] = (owners[order][1:] != owners[order][:-1]) | (items[order][1:] != items[order][:-1])
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(new) - 1
    return found


def _first_of(pair: Int64Array, events: Int64Array) -> Int64Array:
    """The first of `events` of each pair, E where there is none; by pair."""
    found = np.full(len(pair), len(pair), np.int64)
    np.minimum.at(found, pair[events], events)
    return found


def _bought_then(pair: Int64Array, buys: BoolArray) -> BoolArray:
    """Whether each event or a later one of its sequence buys its item; (E,)."""
    purchases = np.flatnonzero(buys)
    last = np.full(len(pair), -1, np.int64)  # by pair
    np.maximum.at(last, pair[purchases], purchases)
    found: BoolArray = last[pair] >= np.arange(len(pair))
    return found


def _before(values: Float64Array, sequences: Sequences) -> Float64Array:
    """The sum of `values` (E,) over the earlier events of each event's sequence; (E,)."""
    total = np.append(0.0, np.cumsum(values))[:-1]
    return total - np.repeat(
        total[sequences.offsets[:-1].clip(max=len(total) - 1)], sequences.lengths
    )
