"""A change leaves the same line in the audit log, whichever way it came: command line, REST, dashboard."""

import json
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from recsys.ingest.event_body import check_event
from recsys.ingest.item_body import check_item
from recsys.ingest.user_body import check_user
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    account_rows,
    attribute_rows,
    audit_rows,
    erasure_rows,
    event_rows,
    item_rows,
    job_rows,
    key_rows,
    schedule_rows,
    tombstone_rows,
    version_rows,
)
from recsys.storage.schema import migrate
from tests.integration.command_line.conftest import Shell
from tests.integration.test_admin_access import field as form_field
from tests.integration.test_admin_access import log_in

FIRST, SECOND = "20250101-000000-aaaaaa", "20250102-000000-aaaaaa"
ORIGIN = "https://shop.example"
ROLES = {"cli": "cli", "rest": "key", "dashboard": "admin"}
NOTHING = dict.fromkeys(
    (
        "events",
        "impressions",
        "aliases",
        "attributes",
        "experiments",
        "quarantine",
        "quality_reports",
    ),
    0,
)


@dataclass(frozen=True)
class Change:
    """A change, the line it leaves, and its ways in; '{…}' stands for what `prepare` gives."""

    action: str
    subject: str
    details: dict[str, Any] = field(default_factory=dict)
    cli: tuple[str, ...] = ()
    rest: tuple[Any, ...] = ()  # method, path, body
    dashboard: tuple[Any, ...] = ()  # path, form


def deployment(action: str, verb: str, *version: str) -> Change:
    path = "/".join(["models", *version, verb])
    given = {"reason": "so"}
    return Change(
        action,
        FIRST,
        {"reason": "so", "replaced": SECOND},
        cli=("models", verb, *version, "--reason", "so"),
        rest=("POST", f"/{path}", given),
        dashboard=(path, given),
    )


def schedule(verb: str) -> Change:
    path = f"jobs/retrain/{verb}"
    return Change(
        f"job.{verb}",
        "retrain",
        cli=("jobs", verb, "retrain"),
        rest=("POST", f"/{path}"),
        dashboard=(path, {}),
    )


def account(action: str, verb: str) -> Change:
    return Change(action, "ada", cli=("admin", verb, "ada"), dashboard=(f"accounts/ada/{verb}", {}))


CHANGES = [
    deployment("model.promote", "promote", FIRST),
    deployment("model.rollback", "rollback"),
    Change(
        "job.run",
        "retrain",
        {"run_id": "{next_run}"},
        cli=("jobs", "run", "retrain"),
        rest=("POST", "/jobs/retrain/run"),
        dashboard=("jobs/retrain/run", {}),
    ),
    Change(
        "job.cancel",
        "prune",
        {"run_id": "{run}"},
        cli=("jobs", "cancel", "{run}"),
        rest=("POST", "/jobs/runs/{run}/cancel"),
        dashboard=("jobs/runs/{run}/cancel", {}),
    ),
    schedule("pause"),
    schedule("resume"),
    Change(
        "key.create",
        "{new_key}",
        {"name": "{way}", "scopes": ["collect"], "origins": [ORIGIN]},
        cli=("keys", "create", "{way}", "--scope", "collect", "--origin", ORIGIN),
        dashboard=("keys/new", {"name": "{way}", "scope": "collect", "origins": ORIGIN}),
    ),
    Change(
        "key.revoke",
        "{key}",
        {"name": "old"},
        cli=("keys", "revoke", "{key}"),
        dashboard=("keys/{key}/revoke", {}),
    ),
    Change(
        "account.create",
        "{way}",
        {"role": "operator"},
        cli=("admin", "create", "{way}", "--role", "operator"),
        dashboard=("accounts/new", {"name": "{way}", "role": "operator"}),
    ),
    Change(
        "account.role",
        "ada",
        {"role": "operator", "before": "viewer"},
        dashboard=("accounts/ada/role", {"role": "operator"}),
    ),
    account("account.password", "password"),
    account("account.disable", "disable"),
    account("account.enable", "enable"),
    Change(
        "user.merge",
        "{ada}",
        {"merged": "session"},
        rest=("POST", "/users/ada/merge", {"session_id": "guest"}),
        dashboard=("users/merge", {"user_id": "ada", "session_id": "guest"}),
    ),
    Change(
        "attributes.set",
        "{ada}",
        {"attributes": 2},
        cli=("users", "attributes", "ada", "--set", '{{"plan": "free", "age": 31}}'),
        rest=("PUT", "/users/ada/attributes", {"plan": "pro", "age": 31}),
    ),
    Change(
        "attributes.delete",
        "{ada}",
        {"attributes": 1},
        cli=("users", "attributes", "ada", "--delete"),
        rest=("DELETE", "/users/ada/attributes"),
    ),
    Change(
        "user.erase",
        "{erased}",
        {"removed": NOTHING},
        cli=("users", "delete", "gone"),
        rest=("DELETE", "/users/gone"),
        dashboard=("users/erase", {"user_id": "gone"}),
    ),
    Change("user.allow", "{gone}", cli=("users", "allow", "gone")),
    Change(
        "item.hide",
        "i1",
        dashboard=("items/availability", {"item_id": "i1", "available": "false"}),
    ),
    Change(
        "item.show",
        "i1",
        dashboard=("items/availability", {"item_id": "i1", "available": "true"}),
    ),
]


@pytest.fixture
def database(tmp_path):
    """What a line holds does not depend on the kind of database."""
    with closing(Database(f"sqlite:///{tmp_path}/recsys.db")) as made:
        migrate.upgrade(made)
        yield made


@pytest.fixture
def service(database, tmp_path, Service, settings_for, add_account, version_row):
    with closing(Service(database, settings_for(tmp_path / "models"))) as made:
        with database.begin() as connection:
            add_account(connection, "root", "admin")
            add_account(connection, "ada", "viewer")
            version_rows.add_version(connection, version_row(FIRST))
            version_rows.add_version(connection, version_row(SECOND))
            version_rows.deploy(connection, FIRST, 1, "test", "the first")
            schedule_rows.put_schedule(connection, "retrain", "0 3 * * *", None, 0)
            item_rows.put_items(connection, [check_item({"item_id": "i1"})], 1)
            guest = check_event({"session_id": "guest", "item_id": "i1"}, 10**15)
            event_rows.insert_events(connection, [guest], 1)
        yield made


def prepare(database, way):
    """The same state before each way; what is in it, by name."""
    with database.begin() as connection:
        version_rows.deploy(connection, SECOND, 1, "test", "as it was")
        for run in job_rows.list_runs(connection, state="requested"):
            job_rows.finish_run(connection, run.id, "cancelled", 1)
        run_id = job_rows.request_run(connection, "prune", "cli", 1)
        schedule_rows.set_paused(connection, "retrain", False, 1)
        account_rows.set_role(connection, "ada", "viewer")
        account_rows.set_disabled(connection, "ada", False, 1)
        attributes = check_user("ada", {"plan": "trial"})
        attribute_rows.put_attributes(connection, [attributes], "replace", 1)
        erasure_rows.erase(connection, "gone", 1)
        return {
            "way": way,
            "run": run_id,
            "next_run": run_id + 1,
            "key": key_rows.key_id_of(key_rows.create_key(connection, "old", ["read"], 1)),
            "ada": tombstone_rows.pseudonym(connection, "ada"),
            "gone": tombstone_rows.pseudonym(connection, "gone"),
            "erased": tombstone_rows.tombstone_name(connection, "gone"),
        }


def filled(value, known):
    """`value` with what stands for '{name}'; alone it keeps its type."""
    if isinstance(value, dict):
        return {key: filled(one, known) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [filled(one, known) for one in value]
    if isinstance(value, str) and value.startswith("{") and value[1:-1] in known:
        return known[value[1:-1]]
    return value.format(**known) if isinstance(value, str) else value


def make(way, given, shell, service, client):
    if way == "cli":
        shell.run(*given)
    elif way == "rest":
        method, path, *body = given
        status = 202 if path.endswith("/run") else 200
        service.call(method, path, status=status, **({"json": body[0]} if body else {}))
    else:
        path, form = given
        token = form_field(client.get("/admin/account"))
        answer = client.post(f"/admin/{path}", data={**form, "csrf_token": token})
        assert answer.status_code in (200, 201, 303), answer.get_data(as_text=True)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.action)
def test_a_change_leaves_the_same_line_from_every_way(change, database, service, tmp_path):
    shell = Shell(tmp_path, f"sqlite:///{tmp_path}/recsys.db")
    client, _ = log_in(service, "root")
    for way, role in ROLES.items():
        if not getattr(change, way):
            continue
        known = prepare(database, way)
        with database.connect() as connection:
            last = max((line.id for line in audit_rows.list_audit(connection)), default=0)
            keys = {row.key_id for row in key_rows.list_keys(connection)}
        wanted = {"new_key": "", **known}
        make(way, filled(getattr(change, way), wanted), shell, service, client)
        with database.connect() as connection:
            lines = [line for line in audit_rows.list_audit(connection) if line.id > last]
            new = {row.key_id for row in key_rows.list_keys(connection)} - keys
        wanted["new_key"] = next(iter(new), "")
        found = [(line.action, line.subject, line.details, line.role) for line in lines]
        subject, details = filled(change.subject, wanted), filled(change.details, wanted)
        assert found == [(change.action, subject, details, role)], way
        assert "gone" not in json.dumps(found)


def test_the_first_key_and_account_leave_lines_too(tmp_path):
    url = f"sqlite:///{tmp_path}/recsys.db"
    made = Shell(tmp_path, url).json("init")
    with closing(Database(url)) as database, database.connect() as connection:
        lines = audit_rows.list_audit(connection)[::-1]
    key = {"name": "admin", "scopes": ["admin"], "origins": []}
    assert [(line.action, line.subject, line.details, line.actor) for line in lines] == [
        ("key.create", key_rows.key_id_of(made["admin_key"]), key, "cli"),
        ("account.create", "admin", {"role": "admin"}, "cli"),
    ]
