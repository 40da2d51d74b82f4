"""Messages to rows: each is an event, rejected, left out or tracked, and the same when it is read again."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.ingest.byte_stream import MAX_ROW_BYTES
from recsys.ingest.ecommerce_events import EventNames
from recsys.ingest.layouts import ColumnMap, ReadOptions
from recsys.ingest.streams.broker import Message, Partition
from recsys.ingest.streams.message_rows import MAX_ROWS, MessageParser
from recsys.text_rules import MAX_ID_LENGTH

NOW_US = 1_700_000_000_000_000
TOPIC = Partition("clicks", 0)
OWN = {"user_id": "u", "item_id": "i"}
TRACKED = {"type": "track", "event": "Product Viewed", "userId": "u"}


def message(value, place=0, **more):
    if not isinstance(value, bytes | dict) or (isinstance(value, dict) and "bytes" not in more):
        value = orjson.dumps(value)
    more.pop("bytes", None)
    partition = more.pop("partition", TOPIC)
    given = {"at_us": NOW_US - 5_000_000, **more}
    return Message(partition, str(place), place, value, str(place + 1), **given)


def parse(*values, options=None, **more):
    found = MessageParser(options).parse(
        [message(one, place, **more) for place, one in enumerate(values)], NOW_US
    )
    accounted(found)
    return found


def accounted(found):
    """Every row is one of four."""
    rows = len(found.events) + len(found.tracked.batch.events) + len(found.tracked.without_event)
    rows += sum(map(len, found.rejections.values())) + found.left_out.total()
    assert found.read.total() == rows


def reasons(found):
    return [one.reason for some in found.rejections.values() for one in some]


def test_an_event_gets_the_id_and_the_time_of_its_message():
    found = parse(OWN, [OWN, {**OWN, "event_id": "own"}])
    assert [one.event_id for _, one in found.events] == ["clicks:0:0", "clicks:0:1#0", "own"]
    assert {one.timestamp_us for _, one in found.events} == {NOW_US - 5_000_000}
    found = parse(OWN, message_id="m-1", at_us=NOW_US + 60_000_000)  # a clock that is ahead
    assert [(one.event_id, one.timestamp_us) for _, one in found.events] == [("m-1", NOW_US)]


@pytest.mark.parametrize("name", ["x" * (MAX_ID_LENGTH + 1), "a\x00b", "\ud800"])
def test_a_name_that_no_id_may_be_is_hashed_alike_each_time(name):
    ids = {parse(OWN, message_id=name).events[0][1].event_id for _ in range(2)}
    (found,) = ids
    assert len(found) == 32 and found.isalnum()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "the message is empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"item_id": 1, "item_id": 2}', "'item_id' stands twice"),
        (b"[]", "expected 1 to 10,000 events, not 0"),
        (orjson.dumps([1] * (MAX_ROWS + 1)), "expected 1 to 10,000 events, not 10001"),
        (b'"' + b"x" * MAX_ROW_BYTES + b'"', "the message is longer than"),
        (b"null", "expected a JSON object"),
        ({**OWN, "prise": 1}, "prise = 1: unknown field"),
        ({"batch": []}, "batch = 0: expected a list of 1 to 2,500 messages"),
        ({"batch": [TRACKED], **OWN}, "batch = ['"),
        ({**TRACKED, "properties": {"product_id": "x", "sku": 1}, "userId": [1]}, "userId"),
    ],
)
def test_what_is_no_event_is_rejected_with_a_reason(value, reason):
    found = parse(value)
    assert found.events == found.tracked.batch.events == []
    (given,) = reasons(found)
    assert reason.split("['")[0] in given
    assert len(given) < 1_000


def test_both_shapes_stand_beside_each_other():
    viewed = {**TRACKED, "properties": {"product_id": "i"}}
    found = parse(OWN, [viewed, OWN], {"batch": [viewed, {**viewed, "event": "Else"}]})
    assert [one.event_id for _, one in found.events] == ["clicks:0:0", "clicks:0:1#1"]
    ids = [one.event_id for _, one in found.tracked.batch.events]
    assert ids == ["clicks:0:1#0", "clicks:0:2#0"]
    assert found.left_out == {TOPIC: 1}
    assert found.tracked.batch.left_out == {"Else": 1}


def test_names_of_ones_own_are_read():
    from recsys.config import TrackedEvent

    names = EventNames({"Watched": TrackedEvent(type="watch", item="properties.film")})
    watched = {**TRACKED, "event": "Watched", "properties": {"film": "f"}}
    found = MessageParser(names=names).parse([message(watched)], NOW_US)
    assert [(one.item_id, one.event_type) for _, one in found.tracked.batch.events] == [
        ("f", "watch")
    ]


def test_with_a_map_every_message_is_read_by_it():
    options = ReadOptions(ColumnMap.parse("user=userId,item=properties.product_id"))
    found = parse({**TRACKED, "properties": {"product_id": "i"}}, options=options)
    assert not found.tracked.sources
    assert [one.item_id for _, one in found.events] == ["i"]


@pytest.mark.parametrize(
    ("columns", "more", "problem"),
    [
        ("user=u", {}, "which field is the item"),
        ("item=i", {}, "which the user or session"),
        ("user=u,item=i", {"unit": "s"}, "which field is the timestamp"),
    ],
)
def test_maps_that_cannot_be(columns, more, problem):
    with pytest.raises(InputError, match=problem):
        MessageParser(ReadOptions(ColumnMap.parse(columns), **more))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**60) | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=6), one, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    (
        *("type", "event", "messageId", "userId", "anonymousId", "batch", "properties", "traits"),
        *("user_id", "session_id", "item_id", "timestamp", "sentAt", "context", "previousId"),
    )
)
KINDS = st.sampled_from(["track", "identify", "alias", "page", "Order Completed"])
ROWS = st.dictionaries(FIELDS, JSON | KINDS | st.lists(st.dictionaries(FIELDS, JSON | KINDS)))


@given(st.lists(JSON | ROWS | st.lists(ROWS, max_size=4) | st.binary(max_size=20), max_size=6))
def test_every_row_is_accounted_for_whatever_comes(values):
    encoded = [one if isinstance(one, bytes) else orjson.dumps(one) for one in values]
    messages = [message(one, place) for place, one in enumerate(encoded)]
    first, second = (MessageParser().parse(messages, NOW_US) for _ in range(2))
    accounted(first)
    assert first.events == second.events  # ids too
    assert first.tracked.batch.events == second.tracked.batch.events
    assert first.tracked.batch.lists == second.tracked.batch.lists
    assert len(first.tracked.batch.messages) == len(first.tracked.sources)
