"""What-if: a sequence built by hand, and what would come next after each of its steps.

The sequence stands in the query string, so that its address can be shared: `item`, `type` and
`gap` (seconds since the step before) once for each step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for

from recsys.errors import InputError
from recsys.events.fields import Event
from recsys.events.times import HOUR_US
from recsys.models.bundle import Bundle
from recsys.serving import answering
from recsys.serving.answers import Answer, RankedItem, Request
from recsys.storage.entities import item_rows
from recsys.storage.entities.item_rows import StoredItem
from recsys.text_rules import MAX_TYPE_LENGTH, stored_text_problem
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.items_page import model_ids
from recsys.web.admin.queries import choice, words
from recsys.web.services import now_us, services

blueprint = Blueprint("admin_what_if", __name__, url_prefix=f"{PREFIX}/what-if")

MAX_STEPS = 50
SHOWN_STEPS = 8  # the last ones, whose lists stand side by side
FOUND = 8  # items offered while typing
LENGTHS = ("5", "10", "20")
GAPS = {
    5: "5 s", 30: "30 s", 120: "2 min", 600: "10 min", 3_600: "1 h", 21_600: "6 h",
    86_400: "1 day", 604_800: "1 week",
}  # fmt: skip
DEFAULT_GAP = 30
USUAL_TYPES = ("view", "cart", "purchase")  # offered where no model says which it knows


@dataclass(frozen=True)
class Step:
    """One event of the sequence."""

    item_id: str
    event_type: str
    gap: int  # seconds since the step before; a key of GAPS


@dataclass(frozen=True)
class Change:
    """A place in the list after a step, against the list before it."""

    rank: int
    item_id: str
    item: StoredItem | None
    moved: str  # 'new', 'up 2', 'down 1', or '' where it stayed


@dataclass(frozen=True)
class Column:
    """The list after a step; number 0 is the one before any event."""

    number: int
    step: Step | None
    changes: list[Change]
    left: list[str]  # item ids that the step pushed out


@view(blueprint, "", role="viewer", query=("k", "q", "add", "do"), repeated=("item", "type", "gap"))
def index() -> Any:
    """The sequence and what follows from it; a button of its form comes back with the sequence
    changed.
    """
    given, length = _steps(), choice("k", LENGTHS, "10") or "10"
    changed = _changed(given)
    if changed is not None:
        return redirect(address(changed, length))
    k = int(length)
    bundle = services().recommender.bundle()
    answers = _answers(given, k)
    columns = _columns(given, answers)
    ids = {step.item_id for step in given}
    with services().database.connect() as connection:
        items = item_rows.get_items(connection, ids | {i for one in columns for i in one.left})
    asked = words("q")
    return render_template(
        "admin/what_if.html",
        steps=given,
        answer=answers[-1],
        columns=columns,
        moved={one.item_id: one.moved for one in columns[-1].changes} if len(given) else {},
        items=items,
        unknown=[] if bundle is None else [i for i in ids if i not in bundle.vocabulary],
        types=_types(bundle, given),
        unread=_unread(bundle, given),
        gaps=GAPS,
        new_session=bundle.session_gap_seconds if bundle is not None else None,
        k=k,
        lengths=LENGTHS,
        found=search(asked) if asked else [],
        asked=asked,
        full=len(given) >= MAX_STEPS,
        limit=MAX_STEPS,
        more=max(0, len(given) - SHOWN_STEPS),
    )


@view(blueprint, "/search", role="viewer", query=("q",))
def options() -> str:
    """A part of the page: items to choose from while typing."""
    asked = words("q")
    return render_template(
        "admin/what_if_options.html", found=search(asked) if asked else [], asked=asked
    )


def search(text: str) -> list[tuple[str, StoredItem | None]]:
    """Items by title or id, those of the catalogue first, then ids that only the model knows."""
    if problem := stored_text_problem(text):
        raise InputError("q", text, problem)
    bundle = services().recommender.bundle()
    with services().database.connect() as connection:
        found: dict[str, StoredItem | None] = {
            **item_rows.get_items(connection, [text]),
            **{i.item_id: i for i in item_rows.list_items(connection, text, None, FOUND)},
        }
        if bundle is not None and len(found) < FOUND:
            ids = model_ids(bundle.vocabulary.item_ids, text, FOUND)
            known = item_rows.get_items(connection, ids)
            found.update({i: known.get(i) for i in ids if i not in found})
    return list(found.items())[:FOUND]


def address(steps: Sequence[Step], k: str = "10") -> str:
    """Where a sequence is shown."""
    return url_for(
        "admin_what_if.index",
        item=[step.item_id for step in steps],
        type=[step.event_type for step in steps],
        gap=[step.gap for step in steps],
        k=None if k == "10" else k,
    )


def _steps() -> list[Step]:
    """The sequence of the query string; a type or gap that is left out is the usual one."""
    items, types, gaps = (request.args.getlist(name) for name in ("item", "type", "gap"))
    if len(items) > MAX_STEPS:
        raise InputError("item", f"{len(items)} items", f"expected {MAX_STEPS} at most")
    for name, more in (("type", types), ("gap", gaps)):
        if len(more) > len(items):
            raise InputError(name, more[len(items)], "expected one for each item at most")
    steps = []
    for at, item_id in enumerate(items):
        kind = types[at] if at < len(types) else "view"
        gap = gaps[at] if at < len(gaps) else str(DEFAULT_GAP)
        for name, value, limit in (("item", item_id, 256), ("type", kind, MAX_TYPE_LENGTH)):
            if problem := stored_text_problem(value, limit):
                raise InputError(name, value, problem)
        if gap not in map(str, GAPS):
            raise InputError("gap", gap, f"expected one of {', '.join(map(str, GAPS))} (seconds)")
        steps.append(Step(item_id, kind, int(gap)))
    return steps


def _changed(steps: list[Step]) -> list[Step] | None:
    """The sequence after the button that was pressed; None where none was. Raises InputError."""
    added, order = request.args.get("add"), request.args.get("do")
    if added is not None:
        if order is not None:
            raise InputError("do", order, "expected it, or add, not both")
        if problem := stored_text_problem(added):
            raise InputError("add", added, problem)
        if len(steps) >= MAX_STEPS:
            raise InputError("add", added, f"expected a sequence of {MAX_STEPS} steps at most")
        last = steps[-1] if steps else Step("", "view", DEFAULT_GAP)
        return [*steps, replace(last, item_id=added, event_type="view")]
    if order is None:
        return None
    verb, _, places = order.partition(":")
    numbers = [int(part) for part in places.split(":") if re.fullmatch("[0-9]{1,4}", part)]
    if order == "clear":
        return []
    targets = {"up": -1, "down": 1, "remove": 0, "move": None}
    fits = numbers and all(number < len(steps) for number in numbers)
    if verb not in targets or not fits or len(numbers) != (2 if verb == "move" else 1):
        raise InputError("do", order, "expected up, down or remove with a step, or clear")
    taken = steps.pop(numbers[0])
    if verb == "remove":
        return steps
    place = numbers[1] if verb == "move" else max(0, numbers[0] + (-1 if verb == "up" else 1))
    steps.insert(place, taken)
    return steps


def _answers(steps: list[Step], k: int) -> list[Answer]:
    """The lists after the last SHOWN_STEPS steps and before them; the last one explained.

    The newest event is of the last full hour, so that a sequence looked at again was read before.
    """
    now = now_us()
    at, events = now - now % HOUR_US, []
    for number, step in reversed(list(enumerate(steps))):
        events.append(
            Event(
                user_id=None, session_id="what-if", item_id=step.item_id,
                event_type=step.event_type, timestamp_us=at, event_id=f"step {number + 1}",
            )
        )  # fmt: skip
        at -= step.gap * 1_000_000
    events.reverse()
    shared = services()
    found = []
    for count in range(max(0, len(steps) - SHOWN_STEPS), len(steps) + 1):
        asked = Request(
            events=tuple(events[:count]),
            k=k,
            exclude_seen=shared.settings.serving.exclude_seen,
            explain=count == len(steps) > 0,
        )
        found.append(answering.recommend(shared.recommender, asked, now))
    return found


def _columns(steps: list[Step], answers: Sequence[Answer]) -> list[Column]:
    first = len(steps) - len(answers) + 1
    columns: list[Column] = []
    before: list[RankedItem] | None = None
    for number, answer in enumerate(answers, first):
        places = {one.item_id: one.rank for one in before or ()}
        changes = [
            Change(
                one.rank,
                one.item_id,
                one.item,
                "" if before is None else moved(places.get(one.item_id), one.rank),
            )
            for one in answer.items
        ]
        stayed = {one.item_id for one in answer.items}
        left = [one.item_id for one in before or () if one.item_id not in stayed]
        columns.append(Column(number, steps[number - 1] if number else None, changes, left))
        before = answer.items
    return columns


def moved(was: int | None, now: int) -> str:
    """
    >>> moved(None, 3), moved(5, 3), moved(1, 2), moved(2, 2)
    ('new', 'up 2', 'down 1', '')
    """
    if was is None:
        return "new"
    return "" if was == now else f"up {was - now}" if was > now else f"down {now - was}"


def _types(bundle: Bundle | None, steps: list[Step]) -> list[str]:
    """Event types to choose from: those of the model, and any that stand in the sequence."""
    known = bundle.event_types if bundle is not None and bundle.event_types else USUAL_TYPES
    return list(dict.fromkeys([*known, *(step.event_type for step in steps)]))


def _unread(bundle: Bundle | None, steps: list[Step]) -> set[str]:
    """Types in the sequence that the model ignores."""
    read = set(bundle.input_event_types) if bundle is not None else set()
    return {step.event_type for step in steps if read and step.event_type not in read}
