"""Users, Items and What-if of the dashboard, over real databases."""

import re
from html import unescape
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from recsys.ingest.event_body import check_event
from recsys.ingest.user_body import check_user
from recsys.storage.entities import attribute_rows, audit_rows, click_rows, event_rows
from recsys.web.admin.what_if_page import MAX_STEPS, address
from recsys.web.cursors import write_cursor

ODD = "<b>é/日本\"'&%41 ؟"  # an id of many scripts, with markup, a slash, quotes


class Desk:
    """A service and one logged-in client of each role."""

    def __init__(self, service, add_account):
        self.service, self.database = service, service.database
        with self.database.begin() as connection:
            for role in ("viewer", "operator", "admin"):
                add_account(connection, role, role)
        self.clients, self.tokens = {}, {}
        for role in ("viewer", "operator", "admin"):
            client = self.clients[role] = service.app.test_client()
            token = find(client.get("/admin/login"))
            form = {"name": role, "password": add_account.password, "csrf_token": token}
            client.post("/admin/login", data=form)
            self.tokens[role] = find(client.get("/admin/account"))

    def get(self, path, *, role="viewer", status=200, **query):
        answer = self.clients[role].get(f"/admin/{path}", query_string=query or None)
        text = answer.get_data(as_text=True)
        assert answer.status_code == status, text
        return text

    def post(self, path, *, role="admin", status=303, **form):
        form["csrf_token"] = self.tokens[role]
        answer = self.clients[role].post(f"/admin/{path}", data=form)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer

    def send(self, *rows):
        now = 1_760_000_000_000_000
        with self.database.begin() as connection:
            given = [check_event({"timestamp": 10**12 + at * 1_000, **row}, now)
                     for at, row in enumerate(rows)]  # fmt: skip
            event_rows.insert_events(connection, given, now)


def find(page, name="csrf_token"):
    return re.search(rf'name="{name}" value="([^"]+)"', page.get_data(as_text=True)).group(1)


def links(text, part):
    return [unescape(one) for one in re.findall(r'href="([^"]+)"', text) if part in one]


def ranked(text):
    """Ids of a ranked list, best first."""
    lists = re.findall(r'<ol class="ranked".*?</ol>', text, re.DOTALL)
    found = links(
        re.sub(r'<span class="because">.*?</span>\n', "", lists[0], flags=re.S), "item_id="
    )
    return [dict(parse_qsl(urlsplit(one).query))["item_id"] for one in found]


@pytest.fixture
def desk(service, add_account):
    return Desk(service, add_account)


def test_pages_of_an_empty_service_say_what_to_do(bare, add_account):
    desk = Desk(bare, add_account)
    assert "No visitors yet" in desk.get("users")
    assert "No item metadata yet" in desk.get("items")
    assert "No answers are stored yet" in desk.get("items/exposure")
    assert "No steps yet" in desk.get("what-if")
    assert "Nothing to recommend" in desk.get("what-if", item="x")


def test_users_are_listed_searched_and_filtered(desk):
    desk.send(*({"user_id": f"u{n:02}", "item_id": "P0001"} for n in range(30)),
              {"session_id": "guest", "item_id": "P0002"})  # fmt: skip
    first = desk.get("users")
    assert "guest" in first and "u29" in first and "u05" not in first
    rest = desk.clients["viewer"].get(links(first, "cursor=")[0]).get_data(as_text=True)
    assert "u00" in rest and "u29" not in rest
    assert "guest" not in desk.get("users", kind="registered")
    assert "u29" not in desk.get("users", kind="anonymous")
    found = desk.get("users", q="u1")
    assert "u10" in found and "u19" in found and "u29" not in found
    assert "No matches" in desk.get("users", q="nobody")


def test_a_user_beside_what_would_be_recommended(desk, tiny_shop):
    user_id = tiny_shop.events.column("user_id").to_pylist()[0]
    rows = [row for row in tiny_shop.events.to_pylist() if row["user_id"] == user_id][:12]
    with desk.database.begin() as connection:
        given = [check_event({"user_id": user_id, "item_id": row["item_id"],
                              "event_type": row["event_type"],
                              "timestamp": row["timestamp_us"] // 1_000}, 1_800_000_000_000_000)
                 for row in rows]  # fmt: skip
        event_rows.insert_events(connection, given, 1)
    page = desk.get("users/one", user_id=user_id)
    assert f"{len(rows)} events in" in page and "start of visit" in page
    assert 'class="mark mark-1"' in page
    part = desk.get("users/one/next", user_id=user_id, exclude_seen="none")
    expected = desk.service.get(f"/users/{user_id}/recommendations?k=10&exclude_seen=none")
    assert ranked(part) == [one["item_id"] for one in expected["items"]]
    assert "because of" in part and "No items were filtered out" in part
    best = expected["items"][0]["item_id"]
    desk.service.call("PATCH", f"/items/{best}", json={"available": False})
    part = desk.get("users/one/next", user_id=user_id, exclude_seen="none")
    assert "1 removed by filters" in part and "not available" in part
    assert best not in ranked(part)
    part = desk.get("users/one/next", user_id=user_id, exclude_seen="all", k="20")
    assert "already seen (view)" in part
    assert not {row["item_id"] for row in rows} & set(ranked(part))


def test_attributes_stand_on_the_users_page(desk):
    given = {"plan": "<b>pro</b>", "tags": ["a", 1], "long": "x" * 1_000}
    with desk.database.begin() as connection:
        attribute_rows.put_attributes(connection, [check_user("known", given)], "replace", 1)
        attribute_rows.put_attributes(connection, [check_user("empty", {})], "replace", 1)
    page = desk.get("users/one", user_id="known")  # of whom there is no event
    assert "<dt>plan</dt><dd>&lt;b&gt;pro&lt;/b&gt;</dd>" in page and "x" * 201 not in page
    assert "all attributes and all answers" in desk.get("users/one", role="admin", user_id="known")
    assert "No attributes" in desk.get("users/one", user_id="empty")
    desk.send({"user_id": "u", "item_id": "i"})
    assert "Attributes" not in desk.get("users/one", user_id="u")


def test_a_long_time_line_is_paged(desk):
    desk.send(*({"user_id": "u", "item_id": f"P{n:04}"} for n in range(130)))
    seen, path = [], "/admin/users/one?user_id=u"
    for _ in range(5):
        page = desk.clients["viewer"].get(path).get_data(as_text=True)
        found = links(page.partition('class="visits"')[2], "item_id=P")
        seen += [one.rpartition("=")[2] for one in found]
        following = links(page.partition('class="pager"')[2], "cursor=")
        if 'rel="next"' not in page:
            break
        path = following[-1]
    assert seen == [f"P{n:04}" for n in reversed(range(130))]


def test_an_answer_is_replayed(desk):
    answer = desk.service.get("/users/u1/recommendations?k=3&explain=true&scenario=home")
    clicked, other = answer["items"][1]["item_id"], answer["items"][2]["item_id"]
    rid = answer["recommendation_id"]
    desk.service.post("/events", {"user_id": "u1", "item_id": clicked, "recommendation_id": rid})
    shown = [answer["items"][0]["item_id"], clicked]
    desk.service.post("/impressions", {"recommendation_id": rid, "items": shown})
    with desk.database.begin() as connection:
        click_rows.attribute_clicks(connection, 2**53, 2**52, 100)
    page = desk.get("users/answer", recommendation_id=rid)
    rows = re.findall(r"<tr.*?</tr>", page.partition("<tbody>")[2], re.DOTALL)
    assert "shown, no click" in rows[0] and ">view<" in rows[1] and "not shown" in rows[2]
    assert clicked in rows[1] and other in rows[2] and "home" in page
    assert rid in desk.get("users/one", user_id="u1")  # among the answers given to the user
    assert "no stored answer" in desk.get("users/answer", recommendation_id="gone", status=404)


def test_a_user_is_erased_with_a_receipt(desk):
    desk.send(*({"user_id": "ada", "item_id": "P0001"} for _ in range(3)))
    page = desk.get("users/one", user_id="ada", role="admin")
    dialog = page.partition('<dialog id="erase"')[2].partition("</dialog>")[0]
    assert "3 events" in dialog and "cannot be undone" in dialog
    for role in ("viewer", "operator"):
        assert "Erase permanently" not in desk.get("users/one", user_id="ada", role=role)
        desk.post("users/erase", role=role, status=403, user_id="ada")
    receipt = desk.post("users/erase", status=200, user_id="ada").get_data(as_text=True)
    assert "Erasure receipt" in receipt and "rows removed" in receipt
    assert "This user was erased" in desk.get("users/one", user_id="ada", status=410)
    again = desk.post("users/erase", status=200, user_id="ada").get_data(as_text=True)
    assert "Erasure receipt" in again  # twice does no harm
    with desk.database.connect() as connection:
        lines = audit_rows.list_audit(connection, action="user.erase")
    assert [line.actor for line in lines] == ["admin", "admin"] and not re.search(
        r"\bada\b", str(lines)
    )


def test_a_session_is_merged(desk):
    desk.send({"user_id": "ada", "item_id": "P0001"}, {"session_id": "guest", "item_id": "P0002"})
    desk.post("users/merge", role="viewer", status=403, user_id="ada", session_id="guest")
    desk.post("users/merge", role="operator", user_id="ada", session_id="guest")
    page = desk.get("users/one", user_id="ada", role="operator")
    assert "count as ada" in page and "P0002" in page and "session guest" in page
    assert "Merged into" in desk.get("users/one", session_id="guest")
    desk.post("users/merge", role="operator", user_id="ada", session_id="nobody")
    assert "Not merged: no session" in desk.get("users/one", user_id="ada", role="operator")
    desk.post("users/merge", role="operator", user_id="ada", other_id="ada")
    assert "cannot be merged into itself" in desk.get("users/one", user_id="ada", role="operator")
    with desk.database.connect() as connection:
        lines = audit_rows.list_audit(connection, action="user.merge")
    assert len(lines) == 1 and not re.search(r"\b(ada|guest)\b", str(lines))


def test_items_are_searched_sorted_and_paged(desk, tiny_shop):
    first = desk.get("items", sort="item_id")
    ids = re.findall(r'<span class="id muted">([^<]+)', first)
    assert ids == sorted(item.item_id for item in tiny_shop.shop.items)[:25]
    rest = desk.clients["viewer"].get(links(first, "cursor=")[0]).get_data(as_text=True)
    assert re.findall(r'<span class="id muted">([^<]+)', rest)[0] > ids[-1]
    item = tiny_shop.shop.items[7]
    assert item.item_id in desk.get("items", q=item.title.upper())
    assert "No matches" in desk.get("items", q="no such")
    assert "a category of some item" in desk.get("items", category="no such", status=422)
    with desk.database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM item_categories")
        connection.exec_driver_sql("DELETE FROM items")
    assert "Known to the model, no metadata" in desk.get("items", q=item.item_id)


def test_an_item_is_hidden_and_shown_again(desk, tiny_shop):
    popular = desk.service.get("/items/popular?k=5")["items"] or []
    item_id = popular[0]["item_id"] if popular else tiny_shop.shop.items[0].item_id
    desk.send(*({"user_id": f"u{n}", "item_id": item_id} for n in range(3)))
    answer = desk.service.post("/recommendations", {"events": [{"item_id": "P0003"}], "k": 5})
    best = answer["items"][0]["item_id"]
    page = desk.get("items/one", item_id=best, role="operator")
    assert "Hide from answers" in page and "Next items" in page and "Similar items" in page
    assert "Hide from answers" not in desk.get("items/one", item_id=best)
    desk.post("items/availability", role="viewer", status=403, item_id=best, available="false")
    desk.post("items/availability", role="operator", item_id=best, available="false")
    after = desk.service.post("/recommendations", {"events": [{"item_id": "P0003"}], "k": 50})
    assert best not in [one["item_id"] for one in after["items"]]
    page = desk.get("items/one", item_id=best, role="operator")
    assert "is hidden from all answers" in page and "Show again" in page
    desk.post("items/availability", role="operator", item_id=best, available="true")
    again = desk.service.post("/recommendations", {"events": [{"item_id": "P0003"}], "k": 5})
    assert again["items"] == answer["items"]
    with desk.database.connect() as connection:
        lines = audit_rows.list_audit(connection, action="item")
    assert [(line.action, line.subject) for line in lines] == [
        ("item.show", best), ("item.hide", best),
    ]  # fmt: skip
    desk.post("items/availability", role="operator", status=404, item_id="no", available="false")
    desk.post("items/availability", role="operator", status=422, item_id=best, available="maybe")


def test_exposure_tells_its_window_and_what_was_never_shown(desk, tiny_shop):
    shown = desk.service.get("/users/u1/recommendations?k=5")["items"]
    desk.service.app.extensions["recsys"].impressions.flush()
    page = desk.get("items/exposure")
    assert "In the newest 1 stored answers" in page and "Gini coefficient" in page
    unseen = page.partition('aria-labelledby="never"')[2]
    assert not any(one["item_id"] in links(unseen, "item_id=") for one in shown)
    assert len(links(unseen, "item_id=")) == 25
    rest = desk.clients["viewer"].get(links(unseen, "cursor=")[0]).get_data(as_text=True)
    assert len(links(rest.partition('aria-labelledby="never"')[2], "item_id=")) == 25
    item = desk.get("items/one", item_id=shown[0]["item_id"])
    assert "20.00%" in item and "1 of 5 item impressions" in item


def test_what_if_ranks_as_the_api_does_and_tells_what_moved(desk):
    sequence = [("P0003", "view", 30), ("P0008", "view", 120), ("P0012", "view", 86_400)]
    query = urlencode([pair for item, kind, gap in sequence
                       for pair in (("item", item), ("type", kind), ("gap", gap))])  # fmt: skip
    page = desk.get(f"what-if?{query}")
    now = 1_760_000_000_000
    times = [now - 86_400_000 - 120_000, now - 86_400_000, now]
    events = [{"item_id": item, "timestamp": at}
              for (item, _, _), at in zip(sequence, times, strict=True)]  # fmt: skip
    expected = desk.service.post("/recommendations", {"events": events, "k": 10})
    assert ranked(page) == [one["item_id"] for one in expected["items"]]
    assert "new session" in page and "After each step" in page
    assert page.count('class="column"') == 4
    assert ">new<" in page and re.search(r"visually-hidden\">(up|down) \d", page)
    shorter = desk.get(f"what-if?{query.partition('&item=P0012')[0]}&k=5")
    assert len(ranked(shorter)) == 5 and ranked(shorter) != ranked(page)[:5]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("do=up:1", "bac"), ("do=down:1", "acb"), ("do=up:0", "abc"), ("do=remove:0", "bc"),
     ("do=move:2:0", "cab"), ("do=clear", ""), ("add=d", "abcd")],
)  # fmt: skip
def test_the_buttons_of_what_if(desk, order, expected):
    answer = desk.clients["viewer"].get(f"/admin/what-if?item=a&item=b&item=c&{order}")
    assert answer.status_code == 302
    query = parse_qsl(urlsplit(answer.headers["Location"]).query)
    assert "".join(value for name, value in query if name == "item") == expected


def test_what_if_is_bounded(desk):
    full = "&".join(["item=P0001"] * MAX_STEPS)
    assert f"{MAX_STEPS} of {MAX_STEPS} steps" in desk.get(f"what-if?{full}")
    for bad in (f"{full}&item=P0001", f"{full}&add=P0001", "item=a&gap=1", "item=a&do=up:9",
                "item=a&do=up", "do=erase:0", "k=1000", "item=", "add=", f"item={'x' * 257}",
                "item=a&do=remove:²", f"item=a&type={'t' * 65}", "item=%00"):  # fmt: skip
        assert "expected" in desk.get(f"what-if?{bad}", status=422) or "%00" in bad


def test_what_if_offers_items(desk, tiny_shop):
    item = tiny_shop.shop.items[5]
    assert item.item_id in desk.get("what-if/search", q=item.item_id)
    assert "No matches for" in desk.get("what-if/search", q="<script>alert(1)</script>")
    assert "<script>" not in desk.get("what-if/search", q="<script>alert(1)</script>")
    assert desk.get("what-if/search").count("<li") == 1


def test_odd_ids_are_shown_and_never_run(desk):
    desk.send({"user_id": ODD, "item_id": ODD}, {"session_id": ODD, "item_id": ODD})
    pages = [
        desk.get("users"), desk.get("users", q=ODD), desk.get("users/one", user_id=ODD),
        desk.get("users/one", session_id=ODD), desk.get("items/one", item_id=ODD),
        desk.get("users/one/next", user_id=ODD), desk.get("what-if", item=ODD),
        desk.get("users/one", user_id=ODD, role="admin"),
    ]  # fmt: skip
    for page in pages:
        assert "<b>é" not in page
    for page in (pages[0], pages[2]):
        queries = [dict(parse_qsl(urlsplit(one).query)) for one in links(page, "item_id=")]
        assert {"item_id": ODD} in queries
    receipt = desk.post("users/erase", status=200, user_id=ODD).get_data(as_text=True)
    assert "<b>é" not in receipt and "&lt;b&gt;é" in receipt


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("users", {"q": "x" * 5_000}), ("users", {"q": "a\0b"}), ("users", {"cursor": "nonsense"}),
        ("users", {"cursor": write_cursor("-1")}), ("users", {"kind": "<b>"}),
        ("users/one", {}), ("users/one", {"user_id": "a", "session_id": "b"}),
        ("users/one", {"user_id": ""}), ("users/one", {"user_id": "u", "cursor": write_cursor("1")}),
        ("users/one", {"user_id": "u", "cursor": write_cursor("1,x")}),
        ("users/one/next", {"user_id": "u", "k": "1000000"}),
        ("users/answer", {}), ("users/answer", {"recommendation_id": "x" * 5_000}),
        ("items", {"q": "x" * 5_000}), ("items", {"cursor": write_cursor('["x"]')}),
        ("items", {"cursor": write_cursor('{"a": 1}')}), ("items", {"cursor": write_cursor("[1e999, 2]")}),
        ("items", {"sort": "price", "cursor": write_cursor('["x", "a"]')}),
        ("items", {"sort": "added", "cursor": write_cursor('[18446744073709551615, "a"]')}),
        ("items", {"sort": "password_hash"}), ("items", {"availability": "1"}),
        ("items/one", {}), ("items/one", {"item_id": "x" * 257}), ("items/exposure", {"cursor": "!"}),
        ("what-if/search", {"q": "x" * 5_000}),
        ("what-if", {"item": "a", "do": "up:" + "9" * 5_000}),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_breaks_nothing(desk, path, query):
    page = desk.get(path, status=422, **query)
    assert "expected" in page or "control character" in page
    for leak in ("Traceback", "SELECT", "sqlite3", "psycopg"):
        assert leak not in page


def test_what_is_gone_is_told(desk):
    assert "no user" in desk.get("users/one", user_id="gone", status=404)
    assert "no session" in desk.get("users/one", session_id="gone", status=404)
    assert "no item" in desk.get("items/one", item_id="gone", status=404)


def test_addresses_of_sequences_leave_out_what_is_usual(desk):
    with desk.service.app.test_request_context():
        assert address([]) == "/admin/what-if"
        assert address([], "20") == "/admin/what-if?k=20"
