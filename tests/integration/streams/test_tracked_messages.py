"""Messages of Segment's tracking API in a stream mean what they mean to POST /v1/batch, stored once."""

import json
import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from recsys import pipeline
from recsys.config import TrackedEvent
from recsys.ingest.layouts import ReadOptions
from recsys.storage.entities import (
    attribute_rows,
    audit_rows,
    erasure_rows,
    impression_rows,
    rejected_rows,
    unmapped_rows,
)
from recsys.storage.schema.tables import aliases, impressions, items
from tests.integration.streams.conftest import FlatEntry, either, on_sqlite, wait_for

TIME = "2024-05-01T12:00:00.000Z"
TIME_US = 1_714_564_800_000_000


@pytest.fixture
def topic():
    return f"tracked-{uuid.uuid4().hex[:8]}"


def tracked(event="Product Viewed", message="m1", **more):
    given = {"type": "track", "event": event, "messageId": message, "userId": "u1"}
    given |= {"anonymousId": "a1", "timestamp": TIME, "properties": {"product_id": "tea"}, **more}
    return {name: value for name, value in given.items() if value is not None}


def identify(user="u1", message="i1", traits=None, anonymous="a1"):
    return tracked(
        type="identify",
        event=None,
        message=message,
        userId=user,
        anonymousId=anonymous,
        traits=traits,
        properties=None,
    )


def consumed(running, feed, topic, messages):
    feed.send(topic, messages)
    running.start(feed, topic)
    wait_for(lambda: running.total("messages") == len(messages))
    (row,) = running.partitions()
    assert row.read == row.accepted + row.duplicates + row.rejected + row.left_out
    return row


def rejected(database):
    with database.connect() as connection:
        return rejected_rows.list_rejected(connection)


@either
def test_messages_batches_and_events_of_one_stream(running, redis_feed, topic, database):
    order = tracked(
        "Order Completed",
        "m2",
        properties={
            "order_id": "o1",
            "products": [{"sku": "a", "price": 2, "quantity": 2}, {"sku": "b"}],
        },
    )
    shown = {"list_id": "home", "products": [{"product_id": "a"}, {"product_id": "b"}]}
    messages = [
        tracked(properties={"product_id": "tea", "name": "Green tea", "price": 3}),
        {"user_id": "u2", "item_id": "own", "timestamp": TIME_US // 1_000},
        {"batch": [order, tracked(message="m1"), tracked("Something Else", "m3")], "sentAt": TIME},
        identify(traits={"plan": "free"}),
        tracked("Product List Viewed", "m4", properties=shown),
        [tracked("Product Added", None), {"user_id": "u3", "item_id": "own"}],
        tracked(type="page", event=None, message="m5"),
        {"batch": [tracked("Product Clicked", None), tracked("Something Else", None)]},
        tracked("Product Viewed", "m6", properties={}),
        tracked("Product Viewed", "m7", userId=None, anonymousId=None),
    ]
    row = consumed(running, redis_feed, topic, messages)
    # Events: m1, own, m2#1, m2#2, an addition, own, a click; an identify and a list without one.
    assert (row.accepted, row.duplicates, row.rejected, row.left_out) == (9, 1, 1 + 1, 3)
    stored = {one.event_id: one for one in running.stored()}
    found = {(one.user_id, one.session_id, one.item_id, one.event_type) for one in stored.values()}
    assert found == {
        ("u1", "a1", "tea", "view"),
        ("u2", None, "own", "view"),
        ("u1", "a1", "a", "purchase"),
        ("u1", "a1", "b", "purchase"),
        ("u1", "a1", "tea", "cart"),
        ("u3", None, "own", "view"),
        ("u1", "a1", "tea", "click"),
    }
    assert {"m1", "m2#1", "m2#2"} < set(stored)
    assert stored["m2#1"].value == 4.0
    assert stored["m1"].timestamp_us == TIME_US
    # Sent when it happened, by the sender's clock: by the broker's it happened when it came.
    came = stored["m2#2"]
    assert 0 <= came.received_at_us - came.timestamp_us < 60_000_000
    # What has no messageId goes by its place in the stream.
    (added,) = [key for key, one in stored.items() if one.event_type == "cart"]
    assert added.startswith(f"{topic}:0:") and added.endswith("#0")
    with database.connect() as connection:
        merged = connection.execute(select(aliases.c.alias_key, aliases.c.user_id)).all()
        assert [tuple(one) for one in merged] == [("s:a1", "u1")]
        assert attribute_rows.get_attributes(connection, "u1").attributes == {"plan": "free"}
        (seen,) = connection.execute(select(impressions.c.recommendation_id)).scalars()
        assert impression_rows.get_impression(connection, seen).shown == ("a", "b")
        titles = connection.execute(select(items.c.title).where(items.c.item_id == "tea"))
        assert titles.scalar() == "Green tea"
        names = {one.name: one.number for one in unmapped_rows.list_names(connection)}
        (line,) = [one for one in audit_rows.list_audit(connection) if one.action == "user.merge"]
    assert names == {"Something Else": 2, "page": 1}
    assert (line.actor, line.role) == ("consume", "cli")
    bad = rejected(database)
    assert [one["source"] for one in bad] == [f"{topic}:0"] * 2
    assert "product_id" in bad[0]["reason"] or "item_id" in bad[0]["reason"]
    assert "userId and anonymousId are both missing" in bad[1]["reason"]
    assert json.loads(bad[1]["raw"])["messageId"] == "m7"


@either
def test_read_again_under_another_name_they_are_duplicates(running, redis_feed, topic, database):
    products = [{"sku": "a"}, {"sku": "b"}]
    messages = [
        tracked("Order Completed", None, properties={"products": products}),
        {"batch": [tracked(message=None), tracked(message=None)]},
        tracked("Product List Viewed", None, properties={"products": products}),
    ]
    consumed(running, redis_feed, topic, messages)
    running.stop()
    running.start(redis_feed, topic, name="again")
    wait_for(lambda: running.total("messages") == 6)
    assert len(running.stored()) == 4
    assert running.total("accepted") == 4 + 2  # a list that was shown holds no event
    assert running.total("duplicates") == 4
    with database.connect() as connection:
        number = connection.execute(select(func.count()).select_from(impressions)).scalar()
    assert number == 1


@either
def test_what_erased_users_send_is_left_out(running, redis_feed, topic, database):
    with database.begin() as connection:
        erasure_rows.erase(connection, "u1", 1)
    products = [{"sku": "a"}, {"sku": "b"}]
    messages = [
        tracked("Order Completed", properties={"products": products}),
        tracked("Product List Viewed", "m2", properties={"products": products}),
        tracked(message="m3", properties={}),  # would go to quarantine
        identify(traits={"plan": "free"}),
        identify(message="i2", anonymous=None, traits={"plan": "free"}),
        tracked(message="m4", userId="u2", anonymousId=None),
    ]
    row = consumed(running, redis_feed, topic, messages)
    assert (row.accepted, row.left_out, row.rejected) == (1, 6, 0)
    assert [one.user_id for one in running.stored()] == ["u2"]
    assert rejected(database) == []
    with database.connect() as connection:
        for table in (aliases, impressions):
            assert not connection.execute(select(func.count()).select_from(table)).scalar()


@on_sqlite
def test_what_cannot_be_stored_is_rejected_with_its_place(running, redis_feed, topic, database):
    many = [{f"trait{n}": n for n in range(start, start + 60)} for start in (0, 60)]
    messages = [
        {"batch": []},
        {"batch": [tracked()] * 2_501},
        {"batch": [7, tracked(type="shout")]},
        identify(message="i1", traits=many[0]),
        identify(message="i2", traits=many[1]),
        tracked("Product Viewed", "m9", properties={"product_id": "x" * 40_000}),
        {"batch": 7},
    ]
    row = consumed(running, redis_feed, topic, messages)
    assert (row.accepted, row.rejected, row.left_out) == (1, 7, 0)
    reasons = [one["reason"] for one in rejected(database)]
    parts = [
        "batch = 0: expected a list of 1 to 2,500 messages",
        "batch = 2501: expected a list of 1 to 2,500 messages",
        "message = 7",
        "type = 'shout'",
        "expected at most 32,768",
        "batch = 7: unknown field",
        "expected at most 100 names",
    ]
    for part in parts:
        assert sum(part in reason for reason in reasons) >= 1, (part, reasons)
    assert all("(entry " in reason for reason in reasons)


@on_sqlite
def test_the_fields_of_an_entry_may_be_a_message(running, redis_feed, topic):
    fields = {
        name: text if isinstance(text, str) else json.dumps(text)
        for name, text in tracked().items()
    }
    consumed(running, redis_feed, topic, [FlatEntry(fields)])
    (row,) = running.stored()
    assert (row.event_id, row.item_id, row.timestamp_us) == ("m1", "tea", TIME_US)


@on_sqlite
def test_what_was_rejected_is_replayed_under_the_same_id(running, redis_feed, topic, database):
    viewed = tracked("Product Viewed", None, properties={"film": 7})
    row = consumed(running, redis_feed, topic, [viewed])
    assert (row.rejected, row.accepted) == (1, 0)
    own = {"Product Viewed": TrackedEvent(type="watch", item="properties.film")}
    options = ReadOptions(format="segment", tracked=own)
    done = pipeline.replay_rejected(database, options, f"{topic}:0", datetime.now(UTC))
    assert (done["read"], done["accepted"]) == (1, 1)
    (stored,) = running.stored()
    assert (stored.item_id, stored.event_type) == ("7", "watch")
    assert stored.event_id.startswith(f"{topic}:0:")
