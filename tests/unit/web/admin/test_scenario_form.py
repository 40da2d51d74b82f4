"""The form of a scenario: what is read into it and saved unchanged is what was there."""

from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from recsys.errors import InputError
from recsys.steering.scenario_spec import Fallback, Logic, read_spec
from recsys.web.admin.scenario_form import LISTS, form_of, given_form, spec_of_form

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=3, max_size=12).filter(
    lambda text: len(text.strip()) > 2
)
IDS = TEXTS.filter(lambda text: len(text.strip()) == len(text))
LOGICS = st.sampled_from(get_args(Logic))
COUNTS = st.integers(1, 1_000)


def numbers(low, high):
    return st.floats(low, high, exclude_min=True, allow_nan=False)


def parts(required, **optional):
    return st.fixed_dictionaries(required, optional=optional)


COMMON = {
    "exclude_seen": st.sampled_from(["purchase,cart", "all", "none", "a, b"]),
    "exclude_items": st.lists(IDS, max_size=4),
    "filter": TEXTS,
    "boosts": st.lists(parts({"when": TEXTS, "factor": st.floats(0, 1_000)}), max_size=3),
    "diversity": st.floats(0, 1),
    "max_per_category": COUNTS,
    "promote": parts({"when": TEXTS, "share": numbers(0, 1)}),
    "rotation": parts({"shown": st.integers(1, 100), "hours": numbers(0, 8_760)}),
    "score_by": TEXTS,
    "fallback": st.sampled_from(get_args(Fallback)),
}
PINS = st.lists(
    st.tuples(IDS, COUNTS), max_size=3, unique_by=(lambda pin: pin[0], lambda pin: pin[1])
).map(lambda pins: [{"item_id": item_id, "position": at} for item_id, at in pins])
ROW = parts({"logic": LOGICS, "title": TEXTS}, k=st.integers(1, 15), rows=st.integers(1, 4))
SPECS = st.one_of(
    parts({}, **COMMON, logic=LOGICS, k=st.just(1_000), pins=PINS, explore=parts({"share": numbers(0, 0.3)})),
    parts({"rows": st.lists(ROW, min_size=1, max_size=4)}, **COMMON),
).map(read_spec)  # fmt: skip


def sent(form):
    """What a browser sends of the form's fields; line ends as in a text area."""
    fields = MultiDict(form.values)
    fields["exclude_items"] = fields["exclude_items"].replace("\n", "\r\n")
    for group, names in LISTS.items():
        for line in form.lists[group]:
            for name, shown in names.items():
                fields.add(shown, line[name])
    return fields


@settings(max_examples=150, deadline=None)
@example(
    read_spec({"promote": {"when": "a=b", "share": 0.07}, "explore": {"share": 0.1 + 0.2 - 0.1}})
)
@example(read_spec({"boosts": [{"when": "name=red ", "factor": 1.23456789012345}]}))
@example(read_spec({"diversity": 1e-7, "rotation": {"shown": 1, "hours": 0.1 + 0.2}}))
@given(SPECS)
def test_a_specification_that_is_saved_as_it_was_read_is_the_same(spec):
    assert spec_of_form(sent(form_of(spec))) == spec


def test_blanks_around_an_id_are_not_of_it_and_a_long_list_is_shown_again_whole():
    ids = [f"sofa-{n:040}" for n in range(1_000)]
    fields = MultiDict({"exclude_items": "\r\n".join(f" {one}\u00a0" for one in ids)})
    assert spec_of_form(fields).exclude_items == tuple(ids)
    shown = given_form(fields, InputError("k", "x", "expected a number"))
    assert shown.values["exclude_items"] == fields["exclude_items"]


@pytest.mark.parametrize("text", ["half", "sNaN", "1e99999999999999999999", "nan", "200"])
def test_a_share_that_is_none_is_refused_by_name(text):
    with pytest.raises(InputError) as caught:
        spec_of_form(MultiDict({"promote_when": "a=b", "promote_share": text}))
    assert caught.value.field == "promote.share"
