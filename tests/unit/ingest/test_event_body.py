from __future__ import annotations

import json
import re

import pytest

from recsys.errors import InputError
from recsys.events.identity import as_page_knows
from recsys.ingest import event_body
from recsys.ingest.cells import MISSING_WORDS, CellRules
from recsys.ingest.event_body import check_event, check_posted, checked_id
from recsys.text_rules import MAX_ID_LENGTH

NOW_US = 1_700_000_000_000_000


def test_a_minimal_event_gets_the_defaults() -> None:
    event = check_event({"user_id": "u", "item_id": "i"}, NOW_US)
    assert (event.user_id, event.session_id, event.item_id) == ("u", None, "i")
    assert (event.event_type, event.timestamp_us) == ("view", NOW_US)
    assert event.event_id is event.value is event.recommendation_id is event.properties is None


def test_every_field_is_taken() -> None:
    event = check_event(
        {
            "session_id": "s/1",
            "item_id": "Ä" * 256,
            "event_type": "purchase",
            "timestamp": "2023-11-14T23:13:20.25+01:00",
            "event_id": "e",
            "value": 3,
            "recommendation_id": "r",
            "properties": {"b": [1, {"ä": None}], "a": "x"},
        },
        NOW_US,
    )
    assert event.timestamp_us == NOW_US + 250_000
    assert event.value == 3.0
    assert event.properties == '{"a":"x","b":[1,{"ä":null}]}'
    assert event.session_id == "s/1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"item_id": None}, "item_id"),
        ({"item_id": ""}, "item_id"),
        ({"item_id": 7.5}, "item_id"),
        ({"item_id": True}, "item_id"),
        ({"item_id": "x" * 257}, "item_id"),
        ({"item_id": "a\x00b"}, "item_id"),
        ({"item_id": "\ud800"}, "item_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": ["u"]}, "user_id"),
        ({"session_id": ""}, "session_id"),
        ({"event_type": "x" * 65}, "event_type"),
        ({"event_type": ""}, "event_type"),
        ({"event_type": 5}, "event_type"),
        ({"user_id": 2**64}, "user_id"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"timestamp": "1700000000000"}, "timestamp"),
        ({"timestamp": "2023-11-14T22:13:20"}, "timestamp"),
        ({"timestamp": "2023-02-30T22:13:20Z"}, "timestamp"),
        ({"timestamp": "2023-11-14T24:00:00Z"}, "timestamp"),
        ({"timestamp": "٢٠٢٣-11-14T22:13:20Z"}, "timestamp"),
        ({"timestamp": "9999-12-31T23:59:59-23:59"}, "timestamp"),
        ({"timestamp": "0000-01-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 10**30}, "timestamp"),
        ({"timestamp": NOW_US // 1000 + 300_001}, "timestamp"),
        ({"event_id": 5.5}, "event_id"),
        ({"value": "3"}, "value"),
        ({"value": True}, "value"),
        ({"value": float("nan")}, "value"),
        ({"value": 10**400}, "value"),
        ({"recommendation_id": ""}, "recommendation_id"),
        ({"properties": []}, "properties"),
        ({"properties": {"a": float("inf")}}, "properties"),
        ({"properties": {"a": "\ud800"}}, "properties"),
        ({"properties": {"a": "\x00"}}, "properties"),
        ({"properties": {"a": "ä" * 4_096}}, "properties"),
        ({"usr_id": "u"}, "usr_id"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], field: str) -> None:
    raw = {"user_id": "u", "item_id": "i", **change}
    with pytest.raises(InputError) as caught:
        check_event(raw, NOW_US)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_five_minutes_ahead_is_the_limit() -> None:
    latest_ms = NOW_US // 1000 + 300_000
    event = check_event({"user_id": "u", "item_id": "i", "timestamp": latest_ms}, NOW_US)
    assert event.timestamp_us == latest_ms * 1000


def test_properties_may_be_eight_levels_deep_and_no_more() -> None:
    def nested(levels: int) -> dict[str, object]:
        return json.loads('{"a":' * levels + "1" + "}" * levels)

    event = check_event({"user_id": "u", "item_id": "i", "properties": nested(8)}, NOW_US)
    assert event.properties == '{"a":' * 8 + "1" + "}" * 8
    for levels in (9, 900):
        with pytest.raises(InputError, match="8 levels"):
            check_event({"user_id": "u", "item_id": "i", "properties": nested(levels)}, NOW_US)


def test_a_backslash_is_not_taken_for_a_nul() -> None:
    event = check_event({"user_id": "u", "item_id": "i", "properties": {"a": "\\u0000"}}, NOW_US)
    assert json.loads(event.properties or "") == {"a": "\\u0000"}


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        check_event(["user_id"], NOW_US)  # type: ignore[arg-type]
    assert caught.value.field == "event"


def test_ids_may_be_whole_numbers():
    raw = {"item_id": 12, "user_id": 0, "session_id": -3, "event_id": 2**63, "recommendation_id": 9}
    event = check_event(raw, NOW_US)
    assert (event.item_id, event.user_id, event.session_id) == ("12", "0", "-3")
    assert (event.event_id, event.recommendation_id) == (str(2**63), "9")


def test_ids_of_a_pages_events_are_a_name_space_of_their_own():
    raw = {"item_id": "i", "session_id": "s", "event_id": "x"}
    assert check_posted(raw, NOW_US, page=True).event_id == "from-page:x"
    assert check_posted(raw, NOW_US, page=False).event_id == "x"
    generated = [check_posted({**raw, "event_id": None}, NOW_US, page=True) for _ in range(2)]
    assert len({one.event_id for one in generated}) == 2
    assert all(as_page_knows(one.event_id) != one.event_id for one in generated)
    for page, event_id in ((False, "from-page:x"), (True, "x" * 250)):
        with pytest.raises(InputError, match="event_id"):
            check_posted({**raw, "event_id": event_id}, NOW_US, page)


def test_plain_ids_are_taken_as_any_other(monkeypatch):
    texts = [*map(chr, range(0x20, 0x100)), *MISSING_WORDS, "1.0", "10", "-7.00", "1e+05", "a b"]
    texts += ["x" * MAX_ID_LENGTH, "x" * (MAX_ID_LENGTH + 1), "a\n", "user-1", "a/b?c=ü", "7\n"]

    def outcome(text: str, rules: CellRules) -> str | None:
        try:
            return checked_id("item_id", text, rules=rules)
        except InputError as error:
            return str(error)

    rules = (CellRules(), CellRules(missing=("user-1",)), CellRules(exact=True))
    pairs = [(text, one) for text in texts for one in rules]
    quick = [outcome(*pair) for pair in pairs]
    monkeypatch.setattr(event_body, "_PLAIN_ID", re.compile("(?!)"))  # matches nothing
    assert quick == [outcome(*pair) for pair in pairs]
