"""Whatever comes in, the document tells the truth about what goes out."""

import inspect
import json
import re
from contextlib import closing, suppress
from itertools import chain
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import FlakyStrategyDefinition, Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from recsys.demo.storefront.shop_routes import add_storefront
from recsys.storage.engine.database import Database
from recsys.storage.entities import account_rows, item_rows
from recsys.storage.schema import migrate
from recsys.web.cursors import write_cursor
from recsys.web.openapi import document
from recsys.web.operations import CATALOGUE
from recsys.web.services import now_us
from tests.conftest import postgresql_in_drills

load_all_checks()
# Keys are sent by the test itself, so that leaving one out proves nothing here; and a text such as
# "0" in a query is a number to HTTP, whatever its JSON type would be. Nor can a schema say all that an
# answer of 422 does, such as that an event names a user or a session.
SKIPPED = {
    "ignored_auth",
    "missing_required_header",
    "negative_data_rejection",
    "positive_data_acceptance",
}
PLACE = re.compile(r"<(?:\w+:)?(\w+)>")
SOME = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_shop, Service, settings_for):
    patch = pytest.MonkeyPatch()
    patch.setattr("recsys.serving.answer_log.PAGE_WAIT_SECONDS", 0.0)
    folder = tmp_path_factory.mktemp("contract")
    database = Database(f"sqlite:///{folder}/x.db")
    migrate.upgrade(database)
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    service = Service(database, settings_for(folder / "models"))
    yield service
    service.close()
    database.close()
    patch.undo()


@pytest.fixture(scope="module")
def operations(running):
    schema = schemathesis.openapi.from_wsgi("/openapi.json", running.app)
    found = [result.ok() for result in schema.get_all_operations()]
    return {f"{one.method.upper()} {one.path}": one for one in found}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_documented(running, operations, mode):
    assert len(operations) > 30
    excluded = [CHECKS.get_one(name) for name in SKIPPED]
    sent = 0
    for operation in operations.values():

        @SOME
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            nonlocal sent
            sent += 1
            response = case.call(headers={"X-API-Key": running.keys["admin"]})
            assert response.status_code < 500 or "health" in case.path, case.path
            case.validate_response(response, excluded_checks=excluded)

        try:
            check()
        except Unsatisfiable:  # nothing about it can be wrong
            assert mode is GenerationMode.NEGATIVE
    assert sent > 200


def test_every_operation_is_for_the_scope_it_declares_and_no_other(running, operations):
    declared = {one.method + " " + PLACE.sub(r"{\1}", one.path): one for one in CATALOGUE}
    assert declared.keys() == operations.keys()
    changing = {name for name in declared if not name.startswith("GET ")}
    for_readers = {name for name in changing if declared[name].scope in (None, "read")}
    assert for_readers == {  # a POST, as what is asked for stands in the body
        "POST /api/v1/items/bought-together",
        "POST /api/v1/recommendations",
        "POST /api/v1/recommendations/batch",
        "POST /api/v1/recommendations/page",
    }
    page = {"X-API-Key": running.keys["collect"], "Origin": "https://shop.example"}
    callers = {scope: {"X-API-Key": running.keys[scope]} for scope in ("read", "write", "admin")}
    callers |= {"nobody": {}, "collect": page}
    for name, operation in operations.items():
        ask_as_everyone(operation, declared[name], callers)


def ask_as_everyone(operation, declared, callers):
    """One request that fits the document, by each: answered, or refused for the scope it lacks."""
    excluded = [CHECKS.get_one(name) for name in SKIPPED]

    @settings(SOME, max_examples=1)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case):
        for caller, headers in callers.items():
            response = case.call(headers=headers)
            status, what = response.status_code, (declared.name, caller)
            assert status < 500 or "health" in declared.path, what
            if declared.scope in (None, caller) or caller == "admin":
                assert status not in (401, 403), what
            elif caller == "collect" and declared.collect:
                assert status != 401, what
            else:
                assert status == (401 if caller == "nobody" else 403), what
            case.validate_response(response, excluded_checks=excluded)

    check()


def test_chains_of_requests_are_answered_as_documented(running):
    """What one answer names, the next request asks for: posted, read, changed, deleted, read again."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", running.app)
    excluded = [CHECKS.get_one(name) for name in SKIPPED]
    steps = []

    class Chains(schema.as_state_machine()):
        def get_call_kwargs(self, case):
            return {"headers": {"X-API-Key": running.keys["admin"]}}

        def validate_response(self, response, case, **kwargs):
            steps.append(case.path)
            assert response.status_code < 500 or "health" in case.path, case.path
            case.validate_response(response, excluded_checks=excluded)

    # The service remembers what earlier chains did, so that a chain drawn again may go another way.
    with suppress(FlakyStrategyDefinition):
        run_state_machine_as_test(
            Chains,
            settings=settings(SOME, max_examples=15, stateful_step_count=8),
        )
    assert len(steps) > 20, steps


# --- texts that no database can hold, wherever a text may stand --------------------------------

NUL, HALF = "a\0b", "a\ud800b"  # half: of a surrogate pair
CURSORS = [
    write_cursor(text)
    for text in (NUL, json.dumps([NUL, "a"]), json.dumps([2**64 - 1, "a"]), "9" * 18, "1,\0")
]
PARAMETER = re.compile(r'(?:words|choice|_form|args\.get|form\.get|getlist|given\.get)\("(\w+)"')


@pytest.fixture
def whole(database, tmp_path, tiny_shop, publish, Service, settings_for, monkeypatch):
    """A service with a model and all its routes."""
    monkeypatch.setattr("recsys.serving.answer_log.PAGE_WAIT_SECONDS", 0.0)
    publish(tiny_shop, database, tmp_path / "models")
    with closing(Service(database, settings_for(tmp_path / "models", storefront_key="k"))) as made:
        add_storefront(made.app)
        yield made


def address(path, text):
    """`path` with `text` in each of its places, and 7 where a number stands."""
    numbered = re.sub(r"<int:\w+>|\{run_id\}", "7", path)
    return re.sub(r"<[^>]+>|\{\w+\}", lambda _: escaped(text), numbered)


def escaped(text):
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def plain(schema, schemas):
    """Some value that fits."""
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "anyOf" in schema:
        return plain(schema["anyOf"][0], schemas)
    if schema.get("type") == "object":
        return {
            name: plain(schema["properties"][name], schemas) for name in schema.get("required", ())
        }
    if schema.get("type") == "array":
        return [plain(schema["items"], schemas)]
    return {"string": "x", "integer": 1}.get(schema.get("type"))


def with_text(schema, schemas, text):
    """Values that fit but for `text`, once for each place where a text may stand."""
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for option in schema.get("anyOf", ()):
        yield from with_text(option, schemas, text)
    if schema.get("type") == "string":
        yield text
    elif schema.get("type") == "array":
        yield from ([one] for one in with_text(schema["items"], schemas, text))
    elif schema.get("type") == "object":
        needed = plain({**schema, "properties": schema.get("properties", {})}, schemas)
        for name, member in schema.get("properties", {}).items():
            yield from ({**needed, name: one} for one in with_text(member, schemas, text))
        if schema.get("additionalProperties") is True:
            yield from (
                {"item_id": text},
                {text: "x"},
                {"item_id": "x", "properties": {"a": [text]}},
            )


@pytest.mark.parametrize("text", [NUL, HALF], ids=["nul", "half"])
def test_no_text_breaks_the_api(whole, text):
    described, broken, sent = document(), [], 0
    schemas = described["components"]["schemas"]

    def send(method, path, **more):
        nonlocal sent
        answer = whole.client.open(path, method=method, headers=headers, **more)
        sent += 1
        if answer.status_code >= 500:
            broken.append((method, path, more.get("data"), answer.status_code))

    headers = {"X-API-Key": whole.keys["admin"], "Content-Type": "application/json"}
    for path, operations in described["paths"].items():
        for method, one in operations.items():
            given = [each for each in one["parameters"] if each["in"] == "query"]
            needed = {each["name"]: "x" for each in given if each["required"]}
            body = one.get("requestBody", {}).get("content", {}).get("application/json", {})
            usual = json.dumps(plain(body["schema"], schemas)) if body else None
            send(method, address(path, text), query_string=needed, data=usual)
            for name in {each["name"] for each in given}:
                for value in (text, *(CURSORS if name == "cursor" else ())):
                    query = "&".join(
                        f"{n}={escaped(v)}" for n, v in {**needed, name: value}.items()
                    )
                    send(method, f"{address(path, 'x')}?{query}", data=usual)
            for value in with_text(body.get("schema", {}), schemas, text):
                data = json.dumps(value)
                send(method, address(path, "x"), query_string=needed, data=data)
    assert broken == []
    assert sent > 150
    whole.app.extensions["recsys"].impressions.flush()


@postgresql_in_drills
def test_no_text_breaks_a_page(whole, add_account):
    with whole.database.begin() as connection:
        add_account(connection, "ada", "admin")
    broken = []
    for rule in whole.app.url_map.iter_rules():
        if not rule.rule.startswith(("/admin", "/shop")):
            continue
        source = inspect.getsource(inspect.getmodule(whole.app.view_functions[rule.endpoint]))
        names = {*PARAMETER.findall(source), "cursor", "q", "category", "session_id"}
        with whole.database.begin() as connection:  # one that logs out may log in again
            token = account_rows.begin_session(connection, "ada", None, now_us())
        client = whole.app.test_client()
        client.set_cookie("recsys_admin", token)
        page = client.get("/admin/account").get_data(as_text=True)
        csrf = {"X-CSRF-Token": re.search(r'name="csrf_token" value="(\w+)"', page).group(1)}
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            paths = [address(rule.rule, text) for text in (NUL, HALF)] if "<" in rule.rule else []
            pairs = [(name, text) for name in sorted(names) for text in (NUL, HALF)]
            pairs += [("cursor", text) for text in CURSORS]
            fields = [f"{name}={escaped(text)}" for name, text in pairs]
            fields += [f"sort={sort}&cursor={CURSORS[2]}" for sort in ("added", "-added", "price")]
            fields += [f"item=a&item=b&do=up:{'9' * 5_000}"]
            form = "application/x-www-form-urlencoded"
            answers = chain(
                (client.open(path, method=method, headers=csrf) for path in paths),
                (
                    client.get(f"{address(rule.rule, 'x')}?{field}")
                    if method == "GET"
                    else client.open(
                        address(rule.rule, "x"),
                        method=method,
                        data=field,
                        content_type=form,
                        headers=csrf,
                    )
                    for field in fields
                ),
            )
            broken += [
                (method, answer.request.url[:120], answer.status_code)
                for answer in answers
                if answer.status_code >= 500
            ]
    assert broken == []


@pytest.mark.parametrize("digits", [19, 20, 100, 5_000])
def test_no_number_breaks_an_address(bare, digits):
    number = "9" * digits
    assert bare.client.get(f"/admin/jobs/runs/{number}").status_code in (302, 404)
    bare.call("GET", f"/jobs/runs/{number}", status=404)
    bare.call("POST", f"/jobs/runs/{number}/cancel", status=404)
    for query in (f"limit={number}", "cursor=" + write_cursor(number[:500])):
        bare.call("GET", f"/jobs?{query}", status=422)
