"""Parameters of the query: every route of the app refuses what it does not take."""

import re

import pytest

from recsys.demo.storefront.shop_routes import add_storefront
from recsys.storage.entities import account_rows
from recsys.web.parameters import taken_by
from recsys.web.services import now_us

WORD = "no_such_word"


@pytest.fixture
def ask(bare, add_account):
    """ask(rule, query): the answers of a route, by method, to an admin with every right."""
    app = add_storefront(bare.app)
    with bare.database.begin() as connection:
        add_account(connection, "ada", "admin")
        token = account_rows.begin_session(connection, "ada", None, now_us())
    client = app.test_client()
    client.set_cookie("recsys_admin", token)
    page = client.get("/admin/account").get_data(as_text=True)
    csrf = re.search(r'name="csrf_token" value="(\w+)"', page).group(1)
    headers = {"X-API-Key": bare.keys["admin"], "X-CSRF-Token": csrf}

    def answers(rule, query):
        path = re.sub(r"<int:\w+>", "1", rule.rule)
        path = re.sub(r"<(?:\w+:)?\w+>", "x", path)
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            yield method, client.open(f"{path}?{query}", method=method, headers=headers)

    answers.app = app
    return answers


def test_every_route_refuses_a_parameter_it_does_not_take(ask):
    asked = 0
    for rule in ask.app.url_map.iter_rules():
        for method, answer in ask(rule, f"{WORD}=1"):
            text = answer.get_data(as_text=True)
            assert answer.status_code == 422, (method, rule.rule)
            assert f"{WORD}: unknown parameter" in text, (method, rule.rule)
            asked += 1
    assert asked > 90


def test_every_route_refuses_a_parameter_given_twice(ask):
    asked = 0
    for rule in ask.app.url_map.iter_rules():
        for name, repeated in taken_by(ask.app, rule.endpoint).items():
            if not repeated:
                for method, answer in ask(rule, f"{name}=a&{name}=b"):
                    assert answer.status_code == 422, (method, rule.rule, name)
                    assert f"{name}: given more than once" in answer.get_data(as_text=True)
                    asked += 1
    assert asked > 60


def test_the_nearest_parameter_is_named(bare):
    answer = bare.call("GET", "/items?categroy=tea", status=422).get_json()
    assert answer["errors"][0]["field"] == "categroy"
    assert "nearest: category" in answer["errors"][0]["message"]


def test_who_may_not_ask_is_told_that_first(bare):
    assert bare.client.get(f"/api/v1/models?{WORD}=1").status_code == 401
    assert bare.client.get(f"/admin/overview?{WORD}=1").status_code == 302
    with_key = bare.client.get(f"/api/v1/models?api_key={bare.keys['read']}")
    assert with_key.status_code == 401


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("items?sort=cheap", "sort"),
        ("items?availability=maybe", "availability"),
        ("items?category=no-such", "category"),
        ("overview?range=8d", "range"),
        ("overview?range=7d&from=2025-01-01&to=2025-01-02", "range"),
        ("data-quality?from=2025-01-01", "to"),
        ("data-quality/quarantine?state=lost", "state"),
        ("jobs?job=sing", "job"),
        ("jobs?state=lost", "state"),
        ("models?state=lost", "state"),
        ("models?ranking=luck", "ranking"),
        ("users?kind=robot", "kind"),
        ("users/one?user_id=u&k=7", "k"),
        ("users/one/next?user_id=u&exclude_seen=all,cart", "exclude_seen"),
        ("what-if?k=7", "k"),
        ("what-if?k=7&add=a", "k"),
        ("what-if?item=a&type=view&type=view", "type"),
        ("what-if?item=a&add=b&do=clear", "do"),
        ("keys?state=lost", "state"),
        ("settings?show=some", "show"),
        ("audit?action=no.such", "action"),
        ("audit?actor=nobody", "actor"),
        ("audit/export.csv?action=no.such", "action"),
        ("audit?from=yesterday", "from"),
    ],
)
def test_a_page_refuses_a_value_that_means_nothing(ask, path, field):
    for rule in ask.app.url_map.iter_rules():
        if rule.rule == "/admin/" + path.partition("?")[0] and "GET" in rule.methods:
            ((_, answer),) = ask(rule, path.partition("?")[2])
            assert answer.status_code == 422
            assert f"{field} = " in answer.get_data(as_text=True)
            return
    pytest.fail("no such page")


def test_a_category_that_no_item_has_is_refused(bare):
    bare.call("PUT", "/items", json=[{"item_id": "i", "title": "Tea", "categories": ["tea"]}])
    for path in ("/items?category=", "/items/popular?category="):
        answer = bare.call("GET", f"{path}Tea", status=422).get_json()
        assert answer["errors"][0]["field"] == "category"
        assert "nearest: tea" in answer["errors"][0]["message"]
        bare.call("GET", f"{path}tea")
    bare.call("GET", "/items?item_id=i&category=tea", status=422)
