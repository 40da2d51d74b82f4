"""The form of a scenario: a specification as its fields, and the fields as a specification."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from werkzeug.datastructures import MultiDict

from recsys.errors import InputError
from recsys.steering.scenario_spec import ScenarioSpec, read_spec

# Lists of the form: its fields by the names of the specification's.
LISTS = {
    "boosts": {"when": "boost_when", "factor": "boost_factor"},
    "pins": {"item_id": "pin_item", "position": "pin_position"},
    "rows": {"logic": "row_logic", "title": "row_title", "k": "row_k", "rows": "row_count"},
}
GROUPS = {
    "promote": {"when": "promote_when", "share": "promote_share"},
    "rotation": {"shown": "rotation_shown", "hours": "rotation_hours"},
    "explore": {"share": "explore_share"},
}
PLAIN = (
    "logic",
    "k",
    "exclude_seen",
    "filter",
    "diversity",
    "max_per_category",
    "score_by",
    "fallback",
)
SHARES = ("promote_share", "explore_share")  # in percent here, from 0 to 1 there
SPARE_LINES = 2  # empty ones behind those of a list
FIELDS = (
    *PLAIN,
    "exclude_items",
    *(name for group in (*LISTS.values(), *GROUPS.values()) for name in group.values()),
)


@dataclass(frozen=True)
class ScenarioForm:
    """What stands in the fields, as text, and what is wrong with one of them."""

    values: Mapping[str, str]
    lists: Mapping[str, list[dict[str, str]]]
    problems: Mapping[str, str] = field(default_factory=dict)  # by the name of a field, or 'form'


def form_of(spec: ScenarioSpec) -> ScenarioForm:
    """The fields that say what `spec` says."""
    plain = spec.plain
    values = {name: _text(plain.get(name)) for name in PLAIN}
    values["logic"], values["fallback"] = spec.logic, spec.fallback
    values["exclude_items"] = "\n".join(spec.exclude_items)
    for group, names in GROUPS.items():
        given = plain.get(group) or {}
        for name, shown in names.items():
            value = given.get(name)
            values[shown] = _percent(value) if shown in SHARES else _text(value)
    lists = {
        group: [{name: _text(one.get(name)) for name in names} for one in plain.get(group, ())]
        for group, names in LISTS.items()
    }
    return ScenarioForm(values, _with_spare(lists))


def given_form(form: MultiDict[str, str], error: InputError | None = None) -> ScenarioForm:
    """The fields as they were sent, with the message of `error` at the one it is of, or of the whole form."""
    values = {
        name: form.get(name, "")
        for name in (
            *PLAIN,
            "exclude_items",
            *(n for group in GROUPS.values() for n in group.values()),
        )
    }
    problems = {}
    if error is not None:
        name = _field_of(error.field)
        problems[name] = problem_of(error) if name == "form" else f"{error.expected}."
    return ScenarioForm(values, _with_spare(_lines_of(form)), problems)


def spec_of_form(form: MultiDict[str, str]) -> ScenarioSpec:
    """What the fields say: that of `form_of(spec)` is `spec`. Raises InputError, of a field of the
    specification.
    """
    given: dict[str, Any] = _filled({name: form.get(name, "") for name in PLAIN})
    given["exclude_items"] = [
        one for one in form.get("exclude_items", "").split("\n") if one.strip()
    ]
    for group, names in GROUPS.items():
        if values := _filled({name: form.get(shown, "") for name, shown in names.items()}):
            given[group] = {
                name: _share(f"{group}.{name}", value) if names[name] in SHARES else value
                for name, value in values.items()
            }
    lines = _lines_of(form)
    for group in LISTS:
        given[group] = [_filled(one) for one in lines[group]]
    if given["rows"]:  # the list of logics always says one; each row has its own
        given.pop("logic", None)
    return read_spec(given)


def problem_of(error: InputError) -> str:
    """What is wrong, with the field of the specification that it is of.

    >>> problem_of(InputError("rows[0].k", 0, "expected 1 or more"))
    'rows[0].k: expected 1 or more.'
    """
    return f"{error.field}: {error.expected}."


def changes(before: ScenarioSpec | None, after: ScenarioSpec) -> list[tuple[str, str, str]]:
    """(field, what it was, what it is) of every field that differs; '' where it has its default.

    >>> changes(ScenarioSpec(k=8), ScenarioSpec(k=12, filter="price<50"))
    [('k', '8', '12'), ('filter', '', 'price<50')]
    """
    was, now = {} if before is None else before.plain, after.plain
    names = [name for name in vars(after) if name in was or name in now]
    return [
        (name, _shown(was.get(name)), _shown(now.get(name)))
        for name in names
        if was.get(name) != now.get(name)
    ]


def _lines_of(form: MultiDict[str, str]) -> dict[str, list[dict[str, str]]]:
    """The lines of each list that say something. A row's logic alone is what its menu begins with."""
    found: dict[str, list[dict[str, str]]] = {}
    for group, names in LISTS.items():
        columns = {name: form.getlist(shown) for name, shown in names.items()}
        count = max(map(len, columns.values()))
        lines = [
            {name: column[at] if at < len(column) else "" for name, column in columns.items()}
            for at in range(count)
        ]
        found[group] = [one for one in lines if any(name != "logic" for name in _filled(one))]
    return found


def _filled(texts: Mapping[str, str]) -> dict[str, str]:
    """Those that are not blank, as they are: a rule's value may begin or end with a blank."""
    return {name: text for name, text in texts.items() if text.strip()}


def _with_spare(lists: Mapping[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    return {
        group: [*lists[group], *(dict.fromkeys(LISTS[group], "") for _ in range(SPARE_LINES))]
        for group in LISTS
    }


def _field_of(name: str) -> str:
    """The form's field of a field of the specification.

    >>> _field_of("boosts[1].when"), _field_of("promote.share"), _field_of("k"), _field_of("rows")
    ('boost_when-1', 'promote_share', 'k', 'form')
    """
    if found := re.match(r"(boosts|pins|rows)\[(\d+)\]\.?(\w*)", name):
        names = LISTS[found[1]]
        return f"{names.get(found[3], next(iter(names.values())))}-{found[2]}"
    group, _, part = name.partition(".")
    if group in GROUPS:
        return GROUPS[group].get(part, next(iter(GROUPS[group].values())))
    top = name.partition("[")[0]
    return top if top in (*PLAIN, "exclude_items", "name") else "form"


def _share(name: str, percent: str) -> float:
    """The share that `percent` says, to the last digit: the text of `_percent`, read back."""
    try:
        return float(Decimal(percent).scaleb(-2))
    except (ArithmeticError, ValueError):
        raise InputError(name, percent, "expected a number of per cent") from None


def _percent(share: float | None) -> str:
    """
    >>> _percent(0.07), _percent(1.0), _percent(0.123456789012)
    ('7', '100', '12.3456789012')
    """
    return "" if share is None else _plain_number(Decimal(repr(share)).scaleb(2))


def _text(value: Any) -> str:
    """
    >>> _text(24.0), _text(1.23456789012), _text(1e-7)
    ('24', '1.23456789012', '0.0000001')
    """
    if value is None:
        return ""
    return _plain_number(Decimal(repr(value))) if isinstance(value, float) else str(value)


def _plain_number(value: Decimal) -> str:
    """`value` with all its digits, and neither an exponent nor zeros at the end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(map(_shown, value))
    return _text(value)
