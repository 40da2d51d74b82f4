"""Scenarios: stored, changed and rolled back, and what answers become by them."""

import json
import re
from collections import Counter
from contextlib import closing

import pytest

from recsys.errors import ConflictError
from recsys.storage.engine.database import Database
from recsys.storage.entities import account_rows, audit_rows, impression_rows, item_rows
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import attributed_clicks
from recsys.web.services import now_us


@pytest.fixture(scope="module")
def shop(tmp_path_factory, tiny_shop, publish, Service, settings_for):
    """A service over one database; each test has scenarios and visitors of its own."""
    folder = tmp_path_factory.mktemp("scenarios")
    database = Database(f"sqlite:///{folder}/x.db")
    migrate.upgrade(database)
    publish(tiny_shop, database, folder / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    with closing(Service(database, settings_for(folder / "models"))) as made:
        yield made
    database.close()


@pytest.fixture(scope="module")
def catalogue(tiny_shop):
    return {item.item_id: item for item in tiny_shop.shop.items}


def items(answer):
    return [item["item_id"] for item in answer["items"]]


def sources(answer):
    return [item["source"] for item in answer["items"]]


def view(service, user, *names):
    assert service.post("/events", [{"user_id": user, "item_id": name} for name in names])


def put(service, name, **spec):
    return service.call("PUT", f"/scenarios/{name}", json=spec).get_json()


def ask(service, user, scenario, **more):
    query = {"scenario": scenario, **more}
    return service.get(f"/users/{user}/recommendations", query_string=query)


def test_versions_are_kept_and_every_change_is_in_the_audit_log(bare):
    first = put(bare, "home", logic="popular", k=5)
    assert (first["version"], first["spec"]) == (1, {"logic": "popular", "k": 5})
    assert put(bare, "home", logic="popular", k=5)["version"] == 1  # it says nothing new
    assert put(bare, "home", logic="latest")["version"] == 2
    back = bare.post("/scenarios/home/rollback", {})
    assert (back["version"], back["note"], back["spec"]) == (3, "rollback to 1", first["spec"])
    bare.call("POST", "/scenarios/home/rollback", json={"version": 3}, status=409)
    bare.call("POST", "/scenarios/home/rollback", json={"version": 9}, status=404)
    bare.call("POST", "/scenarios/none/rollback", json={}, status=404)

    page = bare.get("/scenarios/home/versions?limit=2", scope="read")
    assert [one["version"] for one in page["versions"]] == [3, 2]
    rest = bare.get(f"/scenarios/home/versions?limit=2&cursor={page['next_cursor']}")
    assert ([one["version"] for one in rest["versions"]], rest["next_cursor"]) == ([1], None)
    assert [one["name"] for one in bare.get("/scenarios")["scenarios"]] == ["home"]

    assert bare.call("DELETE", "/scenarios/home").get_json()["version"] == 3
    bare.call("GET", "/scenarios/home", status=404)
    bare.call("DELETE", "/scenarios/home", status=404)
    assert bare.post("/scenarios/home/rollback", {"version": 2})["version"] == 4
    for scope in ("read", "write"):
        bare.call("PUT", "/scenarios/home", json={}, scope=scope, status=403)
    bare.call("PUT", "/scenarios/a b", json={}, status=422)
    for wrong, field in (
        ({"logik": 1}, "logik"),
        ({"boosts": [{"when": "a=b", "factor": 1e9}]}, "boosts[0].factor"),
        ({"pins": [{"item_id": "a", "position": 1}] * 2}, "pins[1].position"),
        ({"filter": "prise<3"}, "filter"),
        ({"promote": {"when": "a<b", "share": 0.5}}, "promote.when"),
        ({"boosts": [{"when": "item.prise < 3", "factor": 2}]}, "boosts[0].when"),
        ({"promote": {"when": "user.vip", "share": 0.5}}, "promote.when"),
        ({"score_by": "chance * item.prise"}, "score_by"),
        ({"score_by": "item.price < 3"}, "score_by"),
    ):
        problem = bare.call("PUT", "/scenarios/home", json=wrong, status=422).get_json()
        assert problem["errors"][0]["field"] == field
        assert "item.prise" not in str(wrong) or "nearest: price" in str(problem["errors"])
    with bare.database.connect() as connection:
        lines = audit_rows.list_audit(connection, action="scenario")
    told = [(line.action, line.details["version"]) for line in reversed(lines)]
    assert told == [
        ("scenario.put", 1), ("scenario.put", 2), ("scenario.rollback", 3),
        ("scenario.delete", 3), ("scenario.rollback", 4),
    ]  # fmt: skip


def test_a_request_narrows_and_never_widens(shop, catalogue):
    view(shop, "n", "P0001", "P0002")
    prices = sorted(item.price for item in catalogue.values())
    middle, high = prices[len(prices) // 2], prices[3 * len(prices) // 4]
    plain = shop.get("/users/n/recommendations")
    assert ask(shop, "n", "narrow").keys() == plain.keys()  # a label alone
    put(shop, "narrow", k=12, filter=f"price<{high}", exclude_items=[items(plain)[0]])
    answer = ask(shop, "n", "narrow")
    assert (answer["scenario"], answer["scenario_version"]) == ("narrow", 1)
    kept = [name for name in items(plain)[1:] if catalogue[name].price < high]
    assert len(items(answer)) == 12
    assert items(answer)[: len(kept)] == kept[:12]
    smaller = ask(shop, "n", "narrow", k=3, filter=f"price<{middle}", exclude_items=kept[0])
    assert len(items(smaller)) == 3 and kept[0] not in items(smaller)
    assert all(catalogue[name].price < middle for name in items(smaller))
    assert len(items(ask(shop, "n", "narrow", k=50))) == 12
    about = ask(shop, "n", "narrow", for_items=kept[1])
    assert kept[1] not in items(about)
    with shop.database.connect() as connection:
        shop.app.extensions["recsys"].impressions.flush()
        stored = impression_rows.get_impression(connection, answer["recommendation_id"])
    assert (stored.scenario, stored.scenario_version) == ("narrow", 1)
    assert shop.get(f"/recommendations/{answer['recommendation_id']}")["scenario_version"] == 1


def test_pins_and_promoted_items_stand_where_they_are_put(shop, catalogue):
    view(shop, "p", "P0001", "P0002")
    plain = items(shop.get("/users/p/recommendations"))
    others = [name for name in catalogue if name not in plain and name not in ("P0001", "P0002")]
    pins = [
        {"item_id": others[0], "position": 1},
        {"item_id": plain[0], "position": 4},
        {"item_id": others[1], "position": 20},
    ]
    put(shop, "pinned", k=20, pins=pins)
    answer = ask(shop, "p", "pinned")
    assert items(answer) == [others[0], *plain[1:3], plain[0], *plain[3:18], others[1]]
    assert [at for at, name in enumerate(sources(answer), 1) if name == "pinned"] == [1, 4, 20]
    assert items(ask(shop, "p", "pinned")) == items(answer)  # as it is kept
    shop.call("PATCH", f"/items/{others[0]}", json={"available": False})
    assert items(ask(shop, "p", "pinned"))[0] == plain[1]
    shop.call("PATCH", f"/items/{others[0]}", json={"available": True})
    assert items(ask(shop, "p", "pinned", exclude_items=others[0]))[0] == plain[1]

    rare = others[2:5]
    for name in rare:
        shop.call("PATCH", f"/items/{name}", json={"properties": {"own_brand": "yes"}})
    put(shop, "promoted", k=8, promote={"when": "own_brand=yes", "share": 0.25})
    answer = ask(shop, "p", "promoted")
    places = [at for at, name in enumerate(sources(answer), 1) if name == "promoted"]
    assert places == [4, 8]
    assert {items(answer)[3], items(answer)[7]} <= set(rare)
    rest = [name for name in items(answer) if name not in rare]
    assert rest == plain[:6]
    put(shop, "promoted", k=8, promote={"when": "own_brand=yes", "share": 1})
    found = items(ask(shop, "p", "promoted"))
    assert set(found[:3]) == set(rare) and found[3:] == plain[:5]  # there are no more


@pytest.mark.parametrize(
    ("logic", "expected"),
    [
        ("similar", {"lstm"}),
        ("next", {"transitions", "popular", "latest"}),
        ("bought_together", {"bought_together"}),
        ("trending", {"trending"}),
        ("popular", {"popular"}),
        ("latest", {"latest"}),
    ],
)
def test_each_logic_lists_what_it_says(shop, logic, expected):
    view(shop, "l", "P0003", "P0004")
    basket = {"user_id": "b", "session_id": "b", "event_type": "purchase"}
    bought = ("P0005", "P0009", "P0010")
    shop.post("/events", [{**basket, "item_id": name} for name in bought])
    put(shop, f"by-{logic}", logic=logic, k=6)
    answer = ask(shop, "l", f"by-{logic}", for_items="P0005,P0006")
    assert len(items(answer)) == 6
    assert not {"P0005", "P0006"} & set(items(answer))
    assert set(sources(answer)) <= expected | {"popular", "latest"}
    assert sources(answer)[0] in expected
    if logic == "bought_together":
        assert set(items(answer)[:2]) == {"P0009", "P0010"}
    if logic in ("similar", "next"):
        asked = "similar" if logic == "similar" else "next"
        put(shop, f"by-{logic}", logic=logic, k=6, fallback="none", exclude_seen="none")
        one = ask(shop, "l", f"by-{logic}", for_items="P0005")
        listed = items(shop.get(f"/items/P0005/{asked}?k=6"))
        assert items(one) == [name for name in listed if name != "P0005"]
    boosted = items(answer)[1]
    put(
        shop,
        f"by-{logic}",
        logic=logic,
        k=6,
        boosts=[{"when": f"item_id={boosted}", "factor": 900}],
    )
    if sources(answer)[1] in expected - {"latest"} or logic == "latest":
        assert items(ask(shop, "l", f"by-{logic}", for_items="P0005,P0006"))[0] == boosted


def test_titled_rows(shop, catalogue):
    view(shop, "r", "P0007", "P0008")
    rows = [
        {"logic": "because_you_viewed", "title": "Because you viewed {item}", "k": 4, "rows": 2},
        {"logic": "top_categories", "title": "{category} for you", "k": 3, "rows": 2},
        {"logic": "popular", "title": "Popular", "k": 5},
    ]
    put(shop, "rows", rows=rows)
    answer = ask(shop, "r", "rows")
    found = answer["rows"]
    assert [row["about_item"] for row in found[:2]] == ["P0008", "P0007"]
    assert found[0]["title"] == f"Because you viewed {catalogue['P0008'].title}"
    own = [row for row in found if row["logic"] == "top_categories"]
    assert 1 <= len(own) <= 2
    for row in own:
        assert row["title"] == f"{row['category']} for you"
        assert all(row["category"] in catalogue[name].categories for name in row["item_ids"])
    assert found[-1]["title"] == "Popular"
    assert items(answer) == [name for row in found for name in row["item_ids"]]
    assert max(Counter(items(answer)).values()) == 1
    assert len(ask(shop, "r", "rows", k=2)["rows"][0]["item_ids"]) == 2
    put(shop, "viewed", logic="because_you_viewed", k=4)
    assert [row["about_item"] for row in ask(shop, "r", "viewed")["rows"]] == ["P0008"]
    assert ask(shop, "nobody", "viewed")["rows"] == []
    put(shop, "categories", logic="top_categories", k=4)
    assert 1 <= len(ask(shop, "nobody", "categories")["rows"]) <= 3


@pytest.mark.parametrize("logic", ["similar", "next", "bought_together"])
def test_a_title_names_the_item_that_a_row_is_about(shop, catalogue, logic):
    rows = [
        {"logic": logic, "title": "Goes with {item}", "k": 3},
        {"logic": "popular", "title": "Popular"},
    ]
    name = f"titled-{logic}"
    put(shop, name, rows=rows)
    view(shop, "t", "P0005", "P0006")
    first = ask(shop, "t", name)["rows"][0]
    assert (first["title"], first["about_item"]) == (
        f"Goes with {catalogue['P0006'].title}",
        "P0006",
    )
    page = ask(shop, "t", name, for_items="P0005")["rows"][0]
    assert page["title"] == f"Goes with {catalogue['P0005'].title}"
    titles = [row["title"] for row in ask(shop, "nobody", name)["rows"]]
    assert titles == ["Popular"]  # there is nothing that the other could name


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"logic": "popular", "title": "Like {item}"}, "a popular row; there is none"),
        ({"logic": "similar", "title": "{category}"}, "a similar row; known: {item}"),
        ({"logic": "top_categories", "title": "{item}"}, "known: {category}"),
        ({"logic": "next", "title": "After {itm}"}, "nearest: {item}"),
        ({"logic": "next", "title": "After {item"}, "nearest: {item}"),
    ],
)
def test_a_title_that_names_what_its_row_has_none_of_is_refused(shop, operator, row, told):
    plain = {"logic": "latest", "title": "New"}
    refused = shop.call("PUT", "/scenarios/bad", json={"rows": [plain, row]}, status=422).get_json()
    (error,) = refused["errors"]
    assert error["field"] == "rows[1].title" and told in error["message"]
    assert row["title"][row["title"].index("{") :] in refused["detail"]
    fields = {"row_logic": [row["logic"]], "row_title": [row["title"]], "row_k": ["5"]}
    page = operator("/new", 422, name="bad", **fields)
    assert 'id="problem-row_title-0"' in page and told in page


def test_a_problem_inside_of_a_page_or_a_batch_names_where_it_stands(shop):
    def refused(path, body):
        answer = shop.call("POST", f"/recommendations/{path}", json=body, status=422)
        return [one["field"] for one in answer.get_json()["errors"]]

    put(shop, "top", k=6)
    page = [{"scenario": "top"}, {"scenario": "top", "filter": ["prise<3"]}]
    assert refused("page", {"user_id": "q", "scenarios": page}) == ["scenarios[1].filter"]
    page[1]["filter"] = ["price"]
    assert refused("page", {"user_id": "q", "scenarios": page}) == ["scenarios[1].filter"]
    batch = [{"user_id": "q"}, {"user_id": "q", "filter": ["prise<3"]}]
    assert refused("batch", {"requests": batch}) == ["requests[1].filter"]
    batch[1] = {"user_id": "q", "events": [{"item_id": "P0001"}, {"item_id": ""}]}
    assert refused("batch", {"requests": batch}) == ["requests[1].events[1].item_id"]


def test_a_page_of_scenarios_shows_no_item_twice(shop):
    view(shop, "q", "P0009", "P0010")
    put(shop, "top", k=6)
    put(shop, "more", logic="popular", k=6)
    asked = [{"scenario": "top"}, {"scenario": "more", "k": 4}, {"scenario": "label", "k": 3}]
    first, second, third = shop.post(
        "/recommendations/page", {"user_id": "q", "scenarios": asked}, scope="read"
    )["answers"]
    assert items(first) == items(ask(shop, "q", "top"))
    assert [len(items(one)) for one in (first, second, third)] == [6, 4, 3]
    every = [*items(first), *items(second), *items(third)]
    assert len(set(every)) == len(every)
    assert len({one["recommendation_id"] for one in (first, second, third)}) == 3
    assert third.get("scenario_version") is None
    page = {"Origin": "https://shop.example"}
    body = {"session_id": "s", "scenarios": [{"scenario": "top"}]}
    shop.post("/recommendations/page", body, scope="collect", headers=page)
    body["scenarios"][0]["filter"] = ["price<3"]
    shop.post("/recommendations/page", body, scope="collect", headers=page, status=403)
    shop.post("/recommendations/page", {"user_id": "q", "scenarios": []}, status=422)


def test_a_rule_whose_property_is_gone_meets_nothing(shop, catalogue):
    shop.call("PATCH", "/items/P0020", json={"properties": {"season": "old"}})
    put(shop, "stale", k=5, filter="season=old")
    assert items(ask(shop, "s", "stale")) == ["P0020"]
    shop.call("PATCH", "/items/P0020", json={"properties": {"season": None}})
    assert items(ask(shop, "s", "stale")) == []
    put(shop, "stale", k=5, boosts=[{"when": "price>1", "factor": 2}])
    assert len(items(ask(shop, "s", "stale"))) == 5


def test_what_the_files_of_a_team_say_comes_in_by_the_command_line(shop, tmp_path, capsys):
    from recsys.cli import scenarios

    config = tmp_path / "config.toml"
    config.write_text(f'[database]\nurl = "{shop.database.url}"\n')
    file = tmp_path / "mail.json"
    file.write_text(json.dumps({"logic": "latest", "k": 3}))
    scenarios.set_("mail", file, config=config, as_json=True)
    file.write_text(json.dumps({"logic": "popular", "k": 3}))
    with pytest.raises(ConflictError, match="cli changed scenario mail"):
        scenarios.set_("mail", file, based_on=0, config=config, as_json=True)
    scenarios.set_("mail", file, based_on=1, config=config, as_json=True)
    scenarios.rollback("mail", None, config=config, as_json=True)
    scenarios.list_(config=config, as_json=True)
    *_, rolled, listed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (rolled["version"], rolled["spec"]["logic"], rolled["author"]) == (3, "latest", "cli")
    assert "mail" in [one["name"] for one in listed["scenarios"]]
    scenarios.show_("mail", config=config, as_json=False)
    assert "rollback to 1" in capsys.readouterr().out
    scenarios.delete("mail", config=config, as_json=True)
    shop.call("GET", "/scenarios/mail", status=404)


@pytest.fixture(scope="module")
def asked(shop):
    """A scenario that 110 visitors asked, of whom 30 clicked the first item."""
    put(shop, "asked", logic="popular", k=4)
    answers = [ask(shop, f"asker-{n}", "asked") for n in range(110)]
    shop.app.extensions["recsys"].impressions.flush()
    with shop.database.begin() as connection:
        connection.execute(
            attributed_clicks.insert(),
            [
                {"event_row_id": 10**6 + n, "recommendation_id": one["recommendation_id"],
                 "item_id": items(one)[0], "rank": 1, "source": "popular", "attributed_at_us": 1}
                for n, one in enumerate(answers[:30])
            ],
        )  # fmt: skip
    return answers


@pytest.fixture(scope="module")
def operator(shop, add_account):
    """A client of the dashboard that is logged in as an operator."""
    client = shop.app.test_client()
    with shop.database.begin() as connection:
        add_account(connection, "opal", "operator")
        token = account_rows.begin_session(connection, "opal", None, now_us())
    client.set_cookie("recsys_admin", token)
    page = client.get("/admin/account").get_data(as_text=True)
    found = re.search(r'name="csrf_token" value="(\w+)"', page)[1]

    def send(path, status=200, **form):
        where = f"/admin/scenarios{path}"
        data = {"csrf_token": found, "based_on": "0", **form}
        answer = client.post(where, data=data) if form else client.get(where)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer.get_data(as_text=True)

    return send


def test_the_editor_saves_what_its_fields_say_and_marks_the_field_that_is_wrong(shop, operator):
    assert "price&lt;50" in operator("/new") or "price<50" in operator("/new")
    fields = {
        "name": "desk", "logic": "popular", "k": "6", "fallback": "none", "filter": "price>1",
        "boost_when": ["price<20", ""], "boost_factor": ["2", ""],
        "pin_item": ["P0030", ""], "pin_position": ["2", ""],
        "promote_when": "price>5", "promote_share": "50", "exclude_items": "P0031\n",
    }  # fmt: skip
    operator("/new", 303, **fields)
    spec = shop.get("/scenarios/desk")["spec"]
    assert spec == {
        "logic": "popular", "k": 6, "fallback": "none", "filter": "price>1",
        "boosts": [{"when": "price<20", "factor": 2.0}], "exclude_items": ["P0031"],
        "pins": [{"item_id": "P0030", "position": 2}],
        "promote": {"when": "price>5", "share": 0.5},
    }  # fmt: skip
    page = operator("/one/desk")
    assert 'value="price&gt;1"' in page and 'value="50"' in page
    taken = operator("/new", 409, **fields)
    assert 'id="problem-name"' in taken
    fields["based_on"] = "1"
    wrong = operator(
        "/one/desk", 422, **{**fields, "boost_when": ["", "prise<3"], "boost_factor": ["", "2"]}
    )
    assert 'id="problem-boost_when-0"' in wrong and "nearest: price" in wrong
    assert 'value="prise&lt;3"' in wrong  # what was typed is not lost
    rows = {"row_title": ["Many"] * 8, "row_logic": ["popular"] * 8, "row_k": ["200"] * 8}
    assert "rows: expected at most 1,000 items in all." in operator(
        "/one/desk", 422, based_on="1", **rows
    )
    wrong = operator("/one/desk", 422, **{**fields, "boost_factor": ["-1", ""]})
    assert 'id="problem-boost_factor-0"' in wrong
    operator("/one/desk", 303, **{**fields, "k": "5"})
    page = operator("/one/desk")
    assert re.search(r"<code>k</code> <del>6</del> <ins>5</ins>", page)
    operator("/one/desk/rollback", 303, version="1")
    assert shop.get("/scenarios/desk")["spec"] == spec
    listed = operator("")
    assert "/admin/scenarios/one/desk" in listed
    operator("/one/desk/delete", 303, sure="yes")
    operator("/one/desk", 404)


def test_who_saves_over_a_change_is_told_whose_it_is_and_loses_nothing(shop, operator):
    put(shop, "shared", k=3)
    mine = {"based_on": "1", "logic": "popular", "fallback": "popular", "k": "7"}
    put(shop, "shared", k=4)
    told = operator("/one/shared", 409, **mine)
    assert re.search(r"Not saved: key \w+ saved version 2 <time", told)
    assert "while you were editing version 1" in told and 'href="#version-2"' in told
    assert re.search(r'id="version-2">.*<del>3</del> <ins>4</ins>', told, re.S)
    assert 'value="7"' in told and 'name="based_on" value="2"' in told
    assert shop.get("/scenarios/shared")["spec"] == {"k": 4}
    # A mistake that is found first is no way round it.
    wrong = operator("/one/shared", 422, **{**mine, "k": "many"})
    assert 'name="based_on" value="1"' in wrong and 'value="many"' in wrong
    operator("/one/shared", 303, **{**mine, "based_on": "2"})
    assert shop.get("/scenarios/shared")["spec"] == {"logic": "popular", "k": 7}
    shop.call("DELETE", "/scenarios/shared")
    told = operator("/one/shared", 409, **{**mine, "based_on": "3"})
    assert re.search(r"Not saved: key \w+ deleted this scenario <time", told)
    assert 'value="7"' in told and 'name="based_on" value="0"' in told
    assert 'action="/admin/scenarios/new"' in told
    operator("/new", 303, **{**mine, "based_on": "0", "name": "shared"})
    assert shop.get("/scenarios/shared")["version"] == 4


def test_a_put_that_is_based_on_a_version_is_refused_where_another_answers(shop):
    def based_on(version, status=200, **spec):
        path = f"/scenarios/based?based_on={version}"
        return shop.call("PUT", path, json=spec, status=status).get_json()

    assert "no version of scenario based answers, not 1" in based_on(1, 409)["detail"]
    assert based_on(0, k=3)["version"] == 1
    told = based_on(0, 409, k=4)["detail"]
    assert re.fullmatch(
        r"key \w+ changed scenario based at \S+Z: its version 1 answers, not 0", told
    )
    assert based_on(1, k=4)["version"] == 2
    assert "its version 2 answers, not 1" in based_on(1, 409, k=5)["detail"]
    assert based_on("x", 422)["errors"][0]["field"] == "based_on"
    shop.call("DELETE", "/scenarios/based")
    told = based_on(2, 409, k=5)["detail"]
    assert re.fullmatch(
        r"key \w+ deleted scenario based at \S+Z: no version of it answers, not 2", told
    )
    assert based_on(0, k=5)["version"] == 3


def test_the_preview_shows_both_lists_and_what_the_rules_leave_out(shop, operator):
    view(shop, "v", "P0001", "P0002")
    plain = items(shop.get("/users/v/recommendations"))
    put(shop, "seen", k=6)
    fields = {
        "name": "seen", "logic": "for_you", "k": "6", "fallback": "popular", "preview_user": "v",
        "exclude_items": plain[0], "pin_item": plain[0], "pin_position": "1",
    }  # fmt: skip
    part = operator("/preview", **fields)
    assert "Version 1" in part and "As edited" in part
    assert "left out by the request" in part and "left out by the rules" in part
    assert "<script" not in operator("/preview", **{**fields, "preview_user": "<script>"})
    assert "filter: expected" in operator("/preview", **{**fields, "filter": "prise<3"})
    assert "Expected 20 items" in operator("/preview", **{**fields, "preview_items": "a," * 30})
    part = operator("/preview", **{**fields, "preview_user": "", "preview_items": "P0001,P0002"})
    assert "As edited" in part
