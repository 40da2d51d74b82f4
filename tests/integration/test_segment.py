"""Segment's tracking API: what is stored of messages, who may send them, and what is refused."""

import base64
import gzip
import json
from contextlib import closing

import pytest
from sqlalchemy import select

from recsys import pipeline
from recsys.config import TrackedEvent
from recsys.events.identity import Owner
from recsys.events.times import from_us, rfc3339
from recsys.ingest.event_files import ReadOptions
from recsys.ingest.raw_rows import Rejection
from recsys.storage.entities import (
    attribute_rows,
    event_rows,
    impression_rows,
    item_rows,
    rejected_rows,
    unmapped_rows,
)
from recsys.storage.schema.tables import aliases, audit_log, events, impressions, items, users
from recsys.web.services import now_us

PAGE = {"Origin": "https://shop.example"}


class Sender:
    """Sends messages as a client does, with a key by HTTP Basic."""

    def __init__(self, service):
        self.service = service
        self.database = service.database

    def send(self, path, body, *, scope="write", status=200, headers=None, **more):
        given = {} if scope is None else {"Authorization": basic(self.service.keys[scope])}
        given.update(headers or {})
        more = more or {"json": body}
        answer = self.service.client.post(f"/v1/{path}", headers=given, **more)
        assert answer.status_code == status, answer.get_data(as_text=True)
        content = answer.get_json()
        if status == 200:
            assert content == {"success": True}
        elif answer.mimetype == "application/json":
            assert set(content) == {"code", "message"}
        return answer

    def batch(self, *messages, **more):
        return self.send("batch", {"batch": list(messages), "sentAt": rfc3339(now_us())}, **more)

    def rows(self, table, *columns):
        with self.database.connect() as connection:
            return connection.execute(select(*columns).select_from(table)).all()

    def events(self):
        columns = (events.c.item_id, events.c.event_type, events.c.user_id, events.c.session_id)
        return self.rows(events, *columns)

    def rejected(self):
        with self.database.connect() as connection:
            return rejected_rows.list_rejected(connection)

    def unmapped(self):
        with self.database.connect() as connection:
            return {one.name: one.number for one in unmapped_rows.list_names(connection)}


def basic(key):
    return f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"


def viewed(item="tea", message="m1", **more):
    given = {"product_id": item, **more.pop("properties", {})}
    return {
        "type": "track",
        "event": "Product Viewed",
        "messageId": message,
        "userId": "u1",
        "anonymousId": "a1",
        "timestamp": rfc3339(now_us()),
        "properties": given,
        **more,
    }


@pytest.fixture
def sender(bare):
    return Sender(bare)


@pytest.fixture
def sender_with(database, tmp_path, Service, settings_for):
    made = []

    def make(auth=None, **segment):
        settings = settings_for(tmp_path / "models", auth)
        settings = settings.model_copy(
            update={"segment": type(settings.segment).model_validate(segment)}
        )
        made.append(Service(database, settings))
        return Sender(made[-1])

    yield make
    for one in made:
        one.close()


def test_a_batch_is_stored_once(sender):
    order = viewed(
        message="m2",
        event="Order Completed",
        properties={"products": [{"sku": "a", "price": 2, "quantity": 2}, {"sku": "b"}]},
    )
    for _ in range(2):  # a client that saw no answer sends it again
        sender.batch(viewed(), order)
    with sender.database.connect() as connection:
        found = event_rows.newest_events(connection, Owner("u1"), 10)
    told = {(e.event_id, e.item_id, e.event_type, e.session_id, e.value) for e in found}
    assert told == {
        ("m1", "tea", "view", "a1", None),
        ("m2#1", "a", "purchase", "a1", 4.0),
        ("m2#2", "b", "purchase", "a1", None),
    }
    assert len(found) == 3
    assert sender.rejected() == [] and sender.unmapped() == {}


@pytest.mark.parametrize("path", ["track", "t", "batch", "b"])
def test_ways_to_send_and_ways_to_name_the_key(sender, path):
    key = sender.service.keys["write"]
    single = path in ("track", "t")
    body = viewed() if single else {"batch": [viewed()]}
    named = {**body, "writeKey": key}
    sender.send(path, named, scope=None)
    sender.send(path, body)
    sender.send(path, body, scope=None, headers={"Authorization": f"Bearer {key}"})
    packed = {"data": gzip.compress(json.dumps(body).encode()), "mimetype": "application/json"}
    sender.send(path, None, headers={"Content-Encoding": "gzip"}, **packed)
    sender.send(path, None, scope=None, data=json.dumps(named), mimetype="text/plain")
    assert len(sender.events()) == 1
    for wrong in ({}, {"writeKey": "no"}, {"writeKey": 7}, {"writeKey": None}):
        sender.send(path, {**body, **wrong}, scope=None, status=401)
    sender.send(path, named, scope="read", status=403)
    sender.send(path, None, status=415, data="x", mimetype="application/xml")
    sender.send(path, None, status=422, data="{", mimetype="application/json")
    sender.send(path, [], status=422)
    sender.send("m", {"series": []}, scope=None)


def test_types_by_their_addresses(sender):
    who = {"userId": "u1", "anonymousId": "a1"}
    for path in ("page", "p", "screen", "s", "group", "g"):
        sender.send(path, who)
    sender.send("identify", who)
    sender.send("a", {"userId": "u2", "previousId": "u1"})
    assert sender.unmapped() == {"page": 2, "screen": 2, "group": 2}
    merged = dict(sender.rows(aliases, aliases.c.alias_key, aliases.c.user_id))
    assert merged == {"s:a1": "u2", "s:u1": "u2", "u:u1": "u2"}
    lines = len(sender.rows(audit_log, audit_log.c.id))
    sender.send("i", who)  # again: u1 is u2's by now, and so is a1
    sender.send("i", {**who, "userId": "u2"})
    assert len(sender.rows(audit_log, audit_log.c.id)) == lines == 3


def test_traits_are_the_users_attributes(sender):
    sender.batch(
        {"type": "identify", "userId": "u1", "traits": {"plan": "free", "age": 31}},
        {"type": "identify", "userId": "u1", "anonymousId": "a1", "traits": {"plan": "gold"}},
        {"type": "identify", "userId": "u2", "traits": {"": 1}},
    )
    with sender.database.connect() as connection:
        found = attribute_rows.get_attributes(connection, "u1")
        assert attribute_rows.get_attributes(connection, "u2") is None
    assert found.attributes == {"plan": "gold", "age": 31}
    assert [one["reason"].split(" = ")[0] for one in sender.rejected()] == ["attributes"]
    merged = sender.rows(aliases, aliases.c.alias_key, aliases.c.user_id)
    assert merged == [("s:a1", "u1")]


def test_a_bad_message_goes_to_the_quarantine_and_the_others_are_stored(sender):
    bad = [
        viewed(message="m2", userId=None, anonymousId=None),
        viewed(None, message="m3"),
        viewed(message="m4", timestamp="soon"),
        viewed(message="m5", properties={"note": "x" * 33_000}),
        7,
        viewed(message="m6", event="Order Completed", properties={"products": [{"sku": 1}, {}]}),
    ]
    for _ in range(2):
        sender.batch(viewed(), *bad)
    assert [row[0] for row in sender.events()] == ["tea", "1"]
    found = sender.rejected()
    assert [one["position"] for one in found] == [1, 2, 3, 4, 5, 6]
    fields = ["userId", "item_id", "timestamp", "message", "message", "item_id"]
    assert [one["reason"].split(" = ")[0] for one in found] == fields
    assert {one["source"] for one in found} == {"segment"}
    assert json.loads(found[1]["raw"])["messageId"] == "m3"
    # Where nothing of a request is of use, the client is told what was wrong with it.
    answer = sender.send("track", bad[2], status=400).get_json()
    assert answer["code"] == "bad_request" and "'soon'" in answer["message"]


def test_what_an_erased_user_sends_is_not_kept(sender):
    sender.batch(viewed())
    sender.service.call("DELETE", "/users/u1")
    sender.batch(
        viewed(message="m2"), viewed(message="m3", userId="u2", anonymousId=None), viewed("", "m4")
    )
    sender.send("identify", {"userId": "u1", "anonymousId": "a9"}, status=400)
    assert [row[2] for row in sender.events()] == ["u2"]
    assert sender.rows(aliases, aliases.c.alias_key) == []
    assert sender.rejected() == []


def test_traits_without_room_are_in_quarantine(sender):
    for start in (0, 60):
        traits = {f"t{n}": n for n in range(start, start + 60)}
        given = {"type": "identify", "userId": "u1", "messageId": f"m{start}", "traits": traits}
        sender.batch(viewed(message=f"v{start}"), given)
    (row,) = sender.rejected()
    assert (row["position"], row["source"]) == (1, "segment")
    assert "120: expected at most 100 names" in row["reason"]


def test_lists_are_impressions(sender):
    listed = viewed(
        event="Product List Viewed",
        properties={"list_id": "home", "products": [{"product_id": "a"}, {"sku": "b"}]},
    )
    for _ in range(2):
        sender.batch(listed)
    columns = (impressions.c.user_id, impressions.c.scenario, impressions.c.shown)
    assert sender.rows(impressions, *columns) == [("u1", "home", '["a","b"]')]
    answer = sender.service.post("/impressions", {"items": ["a", "b", "c"]})["recommendation_id"]
    listed["properties"]["recommendation_id"] = answer
    sender.batch({**listed, "messageId": "m2"})
    with sender.database.connect() as connection:
        assert impression_rows.get_impression(connection, answer).shown == ("a", "b")
    assert sender.events() == []


def test_products_fill_items_that_are_unknown_and_no_others(sender):
    sender.service.call("PUT", "/items", json=[{"item_id": "known"}, {"item_id": "gone"}])
    sender.service.call("DELETE", "/items/gone")
    named = {"name": "Tea", "category": "Drinks", "price": "3.5", "image_url": "/t.png"}
    told = [
        viewed(item, f"m{item}", properties={**named, "brand": "Acme", "currency": "EUR"})
        for item in ("tea", "known", "gone")
    ]
    wrong = viewed("long", "m9", properties={"name": "x" * 2_000})
    sender.batch(*told, wrong)
    sender.batch(viewed("tea", "m8", properties={"name": "Other"}))
    with sender.database.connect() as connection:
        found = item_rows.get_items(connection, ["tea", "known", "gone", "long"])
        assert item_rows.items_in(connection, ["Drinks"]) == {"tea"}
    assert set(found) == {"tea", "known"}
    tea = found["tea"]
    assert (tea.title, tea.categories, tea.price, tea.image) == ("Tea", ["Drinks"], 3.5, "/t.png")
    assert tea.properties == {"brand": "Acme", "currency": "EUR"}
    assert found["known"].title is None
    assert len(sender.events()) == 5
    assert sender.unmapped() == {"item metadata that is none": 1}


def test_a_page_tells_of_its_own_session_alone(sender):
    page = {"scope": "collect", "headers": PAGE}
    shown = {"products": [{"sku": "x"}], "list_id": "made-up", "name": "x"}
    answer = sender.batch(
        viewed(properties={"name": "Spam"}),
        viewed(message="m2", event="Product List Viewed", properties=shown),
        {"type": "identify", "userId": "victim", "anonymousId": "a1", "traits": {"a": 1}},
        {"type": "alias", "userId": "victim", "anonymousId": "a1", "previousId": "other"},
        **page,
    )
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert sender.events() == [("tea", "view", None, "a1")]
    assert sender.rows(events, events.c.event_id) == [("from-page:m1",)]
    assert sender.rows(items, items.c.item_id) == []
    assert sender.rows(users, users.c.user_id) == []
    assert sender.rows(aliases, aliases.c.alias_key) == []
    kept = (impressions.c.user_id, impressions.c.session_id, impressions.c.scenario)
    assert sender.rows(impressions, *kept) == [(None, "a1", None)]
    assert sender.unmapped() == {"identify": 1, "alias": 1}
    sender.batch(viewed(), viewed(anonymousId="a2"), status=403, **page)
    sender.batch(viewed(anonymousId=None), status=400, **page)
    old = rfc3339(now_us() - 8 * 86_400_000_000)
    sender.batch(viewed(message="m9", timestamp=old), status=400, **page)
    for headers in ({}, {"Origin": "https://elsewhere.example"}):
        refused = sender.batch(viewed(), status=403, scope="collect", headers=headers)
        assert "origin" in refused.get_json()["message"]
        assert refused.headers.get("Access-Control-Allow-Origin", "*") == "*"
    asked = {"Access-Control-Request-Method": "POST", **PAGE}
    answer = sender.service.client.options("/v1/t", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    taken = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"Authorization", "Content-Type", "X-Retry-Count"} <= set(taken)


def test_a_page_says_of_its_own_answer_what_was_shown_and_of_no_other(sender):
    page = {"scope": "collect", "headers": PAGE}
    of = {
        session: sender.service.post("/impressions", {"items": ["a", "b"], "session_id": session})
        for session in ("a1", "a2")
    }
    for number, session in enumerate(of):
        listed = {"products": [{"sku": "a"}, {"sku": "foreign"}], **of[session]}
        sender.batch(
            viewed(message=f"l{number}", event="Product List Viewed", properties=listed), **page
        )
    with sender.database.connect() as connection:
        found = {
            session: impression_rows.get_impression(connection, one["recommendation_id"]).shown
            for session, one in of.items()
        }
    assert found == {"a1": ("a",), "a2": ("a", "b")}


def test_a_page_joins_its_session_once_where_that_is_allowed(sender_with):
    sender = sender_with(page_identify=True)
    page = {"scope": "collect", "headers": PAGE}
    who = {"type": "identify", "anonymousId": "a1", "userId": "u1", "traits": {"plan": "gold"}}
    sender.batch(viewed(), who, **page)
    assert sender.events() == [("tea", "view", None, "a1")]
    joined = [("s:a1", "u1")]
    assert sender.rows(aliases, aliases.c.alias_key, aliases.c.user_id) == joined
    sender.batch({**who, "userId": "u2"}, **page)  # it is u1's already
    sender.batch({"type": "alias", "anonymousId": "a1", "userId": "u2", "previousId": "u1"}, **page)
    assert sender.rows(aliases, aliases.c.alias_key, aliases.c.user_id) == joined
    with sender.database.connect() as connection:
        assert len(event_rows.user_events(connection, "u1", 5).events) == 1


def test_a_page_sends_so_much_a_minute(sender_with):
    sender = sender_with({"collect_events_per_minute": 5, "collect_bytes_per_minute": 5_000})
    page = {"scope": "collect", "headers": PAGE}
    who = {"type": "page", "anonymousId": "a1"}
    sender.batch(*[who] * 5, **page)
    refused = sender.batch(who, status=429, **page)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.get_json()["code"] == "too_many_requests"
    sender.batch(viewed(properties={"note": "x" * 5_000}), status=422, **page)


def test_bodies_are_bounded_packed_or_not(sender):
    sender.batch(*[{"type": "page", "userId": "u"}] * 2_500)
    sender.batch(*[{"type": "page", "userId": "u"}] * 2_501, status=422)
    sender.send("batch", {"batch": []}, status=422)
    sender.send("batch", {"batch": {}}, status=422)
    huge = json.dumps({"batch": [{"type": "page", "userId": "u", "x": "y" * 600_000}]}).encode()
    plain = {"mimetype": "application/json"}
    sender.send("batch", None, status=413, data=huge, **plain)
    packed = {"headers": {"Content-Encoding": "gzip"}, **plain}
    sender.send("batch", None, status=413, data=gzip.compress(huge), **packed)
    sender.send("batch", None, status=422, data=b"no gzip", **packed)
    twice = b'{"batch": [{"type": "page", "userId": "a", "userId": "b"}]}'
    sender.send("batch", None, status=422, data=twice, **plain)
    assert sender.unmapped() == {"page": 2_500}


def test_names_are_counted_up_to_a_bound(sender, monkeypatch):
    monkeypatch.setattr(unmapped_rows, "MAX_NAMES", 3)
    track = {"type": "track", "userId": "u"}
    sender.batch(*({**track, "event": name} for name in "aabbc"))
    sender.batch(*({**track, "event": name} for name in "abdef"))
    assert sender.unmapped() == {"a": 3, "b": 3, "c": 1, "(other names)": 3}
    with sender.database.begin() as connection:
        later = now_us() + 31 * 86_400_000_000
        unmapped_rows.count_names(connection, "segment", {"z": 1}, later)
        unmapped_rows.count_names(connection, "stream", {"z": 2}, later)
    with sender.database.connect() as connection:
        found = [(one.source, one.number) for one in unmapped_rows.list_names(connection)]
    assert found == [("stream", 2), ("segment", 1)]


def test_names_of_ones_own(sender_with):
    own = {"Article Read": {"type": "view", "item": "properties.article.id"}}
    sender = sender_with(events=own)
    read = viewed(event="article read", properties={"article": {"id": 7}})
    sender.batch(read)
    assert sender.events() == [("7", "view", "u1", "a1")]


def test_an_archive_adds_what_was_not_sent_here(sender, tmp_path):
    """By the ids of messages; each row of the file has one outcome, what is left out by its name."""
    order = {"products": [{"sku": "a", "price": 2}, {"sku": None}]}
    sent = [viewed(), viewed(message="m2", event="Order Completed", properties=order)]
    sender.batch(*sent)
    more = [viewed("cup", "m3"), viewed(message="m4", event="Signed Up"), viewed(None, "m5")]
    path = tmp_path / "archive.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (*sent, *more)))
    now, options = from_us(now_us()), ReadOptions(format="segment")
    found = pipeline.import_events(sender.database, path, options, now)
    assert (found.read, found.accepted, found.duplicates) == (6, 1, 2)
    assert (found.rejected, found.skipped, found.notes) == (2, 1, {"left out: Signed Up": 1})
    again = pipeline.import_events(sender.database, path, options, now)
    assert (again.accepted, again.duplicates) == (0, 3)
    assert [row[0] for row in sender.events()] == ["tea", "a", "cup"]
    # What could not be sent or imported is told again, with the reason, and added when it is known.
    own = {"order completed": {"type": "purchase", "item": "properties.order_id"}}
    names = {name: TrackedEvent.model_validate(one) for name, one in own.items()}
    waiting = len(sender.rejected())
    replayed = pipeline.replay_rejected(sender.database, options, None, now)
    assert replayed["accepted"] == 0 and len(sender.rejected()) == waiting
    with sender.database.begin() as connection:
        raw = json.dumps({**more[2], "properties": {"order_id": 7}, "event": "Order Completed"})
        rejected_rows.add_rejections(connection, "x", [Rejection(0, "?", raw)], now_us())
    tracked = ReadOptions(format="segment", tracked=names)
    replayed = pipeline.replay_rejected(sender.database, tracked, "x", now)
    assert (replayed["read"], replayed["accepted"], replayed["rejected"]) == (1, 1, 0)
    assert sender.events()[-1] == ("7", "purchase", "u1", "a1")


def test_errors_tell_nothing_of_the_inside(sender, monkeypatch):
    def broken(*given):
        raise RuntimeError("SELECT secret FROM /work")

    monkeypatch.setattr("recsys.commands.intake.store_messages", broken)
    answer = sender.send("track", viewed(), status=500).get_json()
    assert answer["message"] == "the service could not answer"


def test_without_keys_anyone_may_send(sender_with):
    sender = sender_with({"enabled": False})
    sender.send("track", viewed(), scope=None)
    assert len(sender.events()) == 1
    with closing(sender.service.client.get("/v1/track")) as answer:
        assert answer.status_code == 405
