"""Whatever comes in, the document tells the truth about what goes out."""

import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from recsys.storage import item_rows, migrate
from recsys.storage.database import Database
from recsys.web.operations import CATALOGUE

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
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_shop, Service, settings_for):
    patch = pytest.MonkeyPatch()
    patch.setattr("recsys.serving.impressions.PAGE_WAIT_SECONDS", 0.0)
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
        "POST /api/v1/recommendations",
        "POST /api/v1/recommendations/batch",
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

    class Chains(schema.as_state_machine()):
        def get_call_kwargs(self, case):
            return {"headers": {"X-API-Key": running.keys["admin"]}}

        def validate_response(self, response, case, **kwargs):
            assert response.status_code < 500 or "health" in case.path, case.path
            case.validate_response(response, excluded_checks=excluded)

    run_state_machine_as_test(
        Chains,
        settings=settings(SOME, max_examples=15, stateful_step_count=8),
    )
