"""Whose a row in quarantine is."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.ingest.row_owners import OwnerColumns, owner_keys

IDS = ("7", "70", "1001", "ann", "auth0|5f7", "Jo sé", "a@b.example", "x:y", "wróg/1")
BY_NAME = OwnerColumns("who", "visit")
BY_PATH = OwnerColumns("user.id", "visits[].key")
one_id = st.sampled_from(IDS)
junk = st.one_of(
    one_id,
    st.integers(0, 2_000),
    st.lists(one_id, max_size=2),
    st.dictionaries(st.sampled_from(["id", "note"]), one_id, max_size=2),
)
absent = st.sampled_from([None, "", " ", "NULL", r"\N", "NaN"])


@st.composite
def rows(draw):
    """(raw row, columns, its owners): the owners are known from how the row is made."""
    user, session = draw(st.one_of(absent, one_id)), draw(one_id)
    owners = {f"u:{user}" if user in IDS else f"s:{session}"}
    other = {"item": draw(junk), "quantity": draw(junk), "time": "soon"}
    if user == "1001" and draw(st.booleans()):
        user = draw(st.sampled_from([1001, 1001.0, "1001.0", " 1001 "]))
        owners |= {"u:1001"}
    if draw(st.booleans()):
        return json.dumps({**other, "who": user, "visit": session}), [BY_NAME], owners
    nested = {"user": {"id": user, "note": draw(one_id)}, "visits": [{"key": session}, 3]}
    return json.dumps({**other, **nested}), [BY_PATH], owners


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(rows(), one_id)
def test_a_mapped_row_is_of_its_owner_and_of_nobody_who_is_named_elsewhere(row, somebody):
    raw, columns, owners = row
    found = owner_keys(raw, columns)
    for key in (f"u:{somebody}", f"s:{somebody}"):
        assert (key in found) == (key in owners)


@QUICK
@given(st.lists(one_id, min_size=1, max_size=4), st.sampled_from(["\t", ",", ";", "|", '","']))
def test_a_line_that_could_not_be_taken_apart_may_be_of_all_it_names(fields, separator):
    line = separator.join(fields)
    for raw in (json.dumps(line), json.dumps(line, ensure_ascii=False), line):
        for name in fields:
            if separator.strip('"') not in name:
                assert {f"u:{name}", f"s:{name}"} <= owner_keys(raw, [BY_NAME])


@pytest.mark.parametrize(
    "raw",
    [
        '[{"id": "ann"}, 3]',
        '["x", ["ann"]]',
        '{"person": {"name": {"deep": ["ann"]}}}',  # has none of the mapped columns
        '{"ann": 1}',
        '{"who": {"id": "ann"}, "item": 3}',
        '{"who": ["ann", "bob"], "item": 3}',
        '{"user": "ann", "item": ',
        '{"user": "\\u0061nn", "item": ',
        "2025-01-01 GET /buy?user=ann",
        "ann",
    ],
)
def test_what_is_no_flat_object_is_searched_whole(raw):
    assert "u:ann" in owner_keys(raw, [BY_NAME])
    assert "u:an" not in owner_keys(raw, [BY_NAME])


def test_several_ways_of_reading_and_none_that_is_known():
    raw = '{"a": "1", "b": "2", "c": 3}'
    assert owner_keys(raw, [OwnerColumns("a"), OwnerColumns(None, "b")]) == {"u:1", "s:2"}
    assert owner_keys(raw, [OwnerColumns()]) == set()  # a file that has no owners
    assert {"u:1", "u:2", "s:3"} <= owner_keys(raw, None)


def test_hostile_rows_are_searched_too():
    deep = "[" * 3_000 + "]" * 3_000
    assert "u:ann" in owner_keys(deep + " ann", None)
    assert owner_keys('{"who": "\\ud800"}', [BY_NAME]) == {"u:\ud800"}
    assert "u:\U0001f600" in owner_keys('{"who": "\\ud83d\\ude00", ', [BY_NAME])
