"""Keys, accounts, settings and the audit log of the dashboard, over real databases."""

import csv
import io
import re
from contextlib import closing

import pytest

from recsys.config import Settings
from recsys.events.times import DAY_US
from recsys.storage.entities import account_rows, audit_rows, key_rows
from recsys.web.admin.keys_page import MEANING
from recsys.web.cursors import write_cursor
from recsys.web.operations import CATALOGUE
from tests.integration.test_admin_access import PASSWORD, field, log_in

MARKUP = '<script>alert("x")</script>'


@pytest.fixture
def admin(bare, add_account):
    """The service with an account of each role."""
    with bare.database.begin() as connection:
        for role in account_rows.ROLES:
            add_account(connection, f"a-{role}", role)
    return bare


@pytest.fixture
def client(admin):
    return log_in(admin, "a-admin")[0]


def post(client, path, **form):
    form["csrf_token"] = field(client.get("/admin/account"))
    return client.post(path, data=form)


def text(answer):
    return answer.get_data(as_text=True)


def actions(service):
    with service.database.connect() as connection:
        return [(line.action, line.subject) for line in audit_rows.list_audit(connection)]


def test_a_key_is_shown_once_used_and_revoked(admin, client):
    made = post(client, "/admin/keys/new", name="shop", scope=["read", "write"])
    assert made.status_code == 201 and made.headers["Cache-Control"] == "no-store"
    key = re.search(r"rk_[0-9a-f]{12}_[\w-]{43}", text(made)).group(0)
    key_id, secret = key.split("_", 2)[1:]
    admin.keys["new"] = key
    admin.get("/items/popular", scope="new")
    admin.app.extensions["recsys"].activity.flush()
    page = text(client.get("/admin/keys"))
    assert key_id in page and secret not in page
    assert re.search(r"Last used.*?ago", page, re.S)
    assert post(client, f"/admin/keys/{key_id}/revoke").status_code == 303
    assert "Key shop revoked." in text(client.get("/admin/keys"))
    admin.call("GET", "/items/popular", scope="new", status=401)
    again = post(client, f"/admin/keys/{key_id}/revoke")
    assert again.status_code == 404 and "no active key" in text(again)
    assert actions(admin)[:2] == [("key.revoke", key_id), ("key.create", key_id)]
    assert secret not in str(actions(admin)) and key_id in text(client.get("/admin/keys?state=all"))
    with admin.database.connect() as connection:
        assert secret not in str(audit_rows.list_audit(connection))


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"name": "x"}, "Choose at least one scope."),
        ({"name": "", "scope": "read"}, "Enter a name of 1 to 100 characters."),
        ({"name": "x" * 5_000, "scope": "read"}, "Enter a name of 1 to 100 characters."),
        ({"name": "x", "scope": "collect"}, "needs the origins"),
        ({"name": "x", "scope": ["collect", "read"]}, "cannot have another scope"),
        ({"name": "x", "scope": "read", "origins": "https://a.example"}, "Only keys of scope collect"),
        ({"name": "x", "scope": "collect", "origins": "shop.example"}, "such as https://"),
        ({"name": "x", "scope": "collect", "origins": f"https://a{MARKUP}"}, "such as https://"),
        ({"name": "x", "scope": "collect", "origins": "https://a.example/path"}, "such as https://"),
        ({"name": "x", "scope": "collect", "origins": "https://a.b " * 21}, "20 at most"),
        ({"name": "x", "scope": "root"}, "Choose at least one scope."),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_refused_at_its_field(admin, client, form, problem):
    answer = post(client, "/admin/keys/new", **form)
    assert answer.status_code == 422 and problem in text(answer)
    assert MARKUP not in text(answer)
    assert not any(action.startswith("key.") for action, _ in actions(admin))


def test_a_form_sent_twice_makes_one_key(admin, client):
    form = {
        "name": "page",
        "scope": "collect",
        "origins": "https://a.example/\nhttps://b.example:8443",
    }
    with admin.database.begin() as connection:
        for row in key_rows.list_keys(connection):
            key_rows.revoke_key(connection, row.key_id, 1)
    answers = [post(client, "/admin/keys/new", **form) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert "already named page" in text(answers[1])
    with admin.database.connect() as connection:
        live = [row for row in key_rows.list_keys(connection) if row.revoked_at_us is None]
    assert len(live) == 1
    assert live[0].allowed_origins == {"https://a.example", "https://b.example:8443"}


def test_markup_in_names_is_shown_as_text(admin, client):
    assert post(client, "/admin/keys/new", name=MARKUP, scope="read").status_code == 201
    for path in (
        "/admin/keys",
        "/admin/audit",
        f"/admin/audit?subject={MARKUP}",
        "/admin/keys?q=<b>",
    ):
        page = text(client.get(path))
        assert MARKUP not in page and '<b>"' not in page
    assert "&lt;script&gt;" in text(client.get("/admin/keys"))


def test_viewers_see_keys_and_settings_but_neither_audit_nor_accounts(admin):
    client = log_in(admin, "a-viewer")[0]
    page = text(client.get("/admin/keys"))
    assert "New key" not in page and "/revoke" not in page
    assert client.get("/admin/settings").status_code == 200
    for path in ("/admin/keys/new", "/admin/audit", "/admin/audit/export.csv", "/admin/accounts"):
        assert client.get(path).status_code == 403, path
        assert f'href="{path}"' not in page
    operator = log_in(admin, "a-operator")[0]
    assert operator.get("/admin/audit").status_code == 200


def test_accounts_are_made_changed_and_disabled(admin, client):
    made = post(client, "/admin/accounts/new", name="grace", role="viewer", password="")
    password = re.search(r'id="password">([\w-]+)<', text(made)).group(1)
    grace, answer = log_in(admin, "grace", password)
    assert made.status_code == 201 and answer.status_code == 303
    assert "logged in" in text(client.get("/admin/accounts"))
    assert post(client, "/admin/accounts/grace/role", role="operator").status_code == 303
    assert grace.get("/admin/overview").status_code == 302  # logged out by the change
    given = post(client, "/admin/accounts/grace/password")
    renewed = re.search(r'id="password">([\w-]+)<', text(given)).group(1)
    assert log_in(admin, "grace", password)[1].status_code == 403
    grace, _ = log_in(admin, "grace", renewed)
    assert grace.get("/admin/audit").status_code == 200
    assert post(client, "/admin/accounts/grace/disable").status_code == 303
    assert grace.get("/admin/overview").status_code == 302
    assert log_in(admin, "grace", renewed)[1].status_code == 403
    assert post(client, "/admin/accounts/grace/enable").status_code == 303
    assert log_in(admin, "grace", renewed)[1].status_code == 303
    done = [action for action, subject in actions(admin) if subject == "grace"]
    assert [a for a in reversed(done) if a.startswith("account.")] == [
        "account.create", "account.role", "account.password", "account.disable", "account.enable",
    ]  # fmt: skip
    with admin.database.connect() as connection:
        lines = str(audit_rows.list_audit(connection))
    assert password not in lines and renewed not in lines


@pytest.mark.parametrize(
    ("form", "status", "problem"),
    [
        ({"name": MARKUP, "role": "viewer"}, 422, "letters, digits"),
        ({"name": "x" * 5_000, "role": "viewer"}, 422, "letters, digits"),
        ({"name": "new", "role": "root"}, 422, "expected one of viewer"),
        ({"name": "new", "role": "viewer", "password": "too-brief"}, 422, "10 to 200 characters"),
        ({"name": "new", "role": "viewer", "password": "x" * 5_000}, 422, "10 to 200 characters"),
        ({"name": "a-viewer", "role": "viewer"}, 409, "account a-viewer already"),
    ],
)  # fmt: skip
def test_an_account_that_cannot_be_is_refused(admin, client, form, status, problem):
    answer = post(client, "/admin/accounts/new", **form)
    assert answer.status_code == status and problem in text(answer)
    assert MARKUP not in text(answer)
    assert form.get("password", MARKUP) not in text(answer)


def test_the_last_admin_stays_and_unknown_accounts_are_told_of(admin, client):
    for path, form in (("role", {"role": "viewer"}), ("disable", {})):
        answer = post(client, f"/admin/accounts/a-admin/{path}", **form)
        assert answer.status_code == 409 and "only admin left" in text(answer)
    for path in ("role", "disable", "enable", "password"):
        assert post(client, f"/admin/accounts/nobody/{path}", role="viewer").status_code == 404
    assert post(client, "/admin/accounts/a-viewer/role", role="<b>").status_code == 422


def test_settings_show_what_is_in_effect_and_hide_secrets(
    database, tmp_path, Service, monkeypatch, add_account
):
    monkeypatch.setenv("RECSYS_SERVING__DEFAULT_K", "12")
    settings = Settings(
        registry={"path": tmp_path / "models"},
        serving={"default_k": 12},
        schedule={"webhook_url": "https://me:hunter2@hooks.example/T0/hunter3"},
        database={"url": "postgresql://me:hunter4@db.example/shop?password=hunter5"},
    )
    with closing(Service(database, settings)) as service:
        with database.begin() as connection:
            add_account(connection, "ada", "viewer")
        client, _ = log_in(service, "ada")
        page = text(client.get("/admin/settings"))
        assert "hunter" not in page
        assert "postgresql://me:***@db.example/shop" in page and "hooks.example" in page
        assert "Recommendations in an answer where k is not given" in page
        assert page.count('<tr class="marked">') == 4
        assert page.count(">environment<") == 1
        some = text(client.get("/admin/settings?show=changed&q=default_k"))
        assert some.count("<tr") == 2 and "default 20" in some
        assert "No matches" in text(client.get("/admin/settings?q=<b>nothing"))
        assert client.get("/admin/settings?q=" + "x" * 5_000).status_code == 422
        assert client.get("/admin/settings?show=<b>").status_code == 422


def test_the_audit_log_is_paged_filtered_and_exported(admin, client):
    with admin.database.begin() as connection:
        for at in range(60):
            who = audit_rows.Actor("grace" if at % 2 else "=cmd()", "admin", "r1", "10.0.0.1")
            action = "item.hide" if at % 3 else "model.promote"
            audit_rows.add_audit(connection, who, action, f"thing-{at}", at * DAY_US, {"n": at})
    seen, address = [], "/admin/audit?actor=grace"
    while address:
        page = text(client.get(address))
        seen += re.findall(r"thing-(\d+)", page)
        found = re.search(r'rel="next" href="([^"]+)"', page)
        address = found and found.group(1).replace("&amp;", "&")
    assert seen == [str(at) for at in range(59, 0, -2)]
    page = text(client.get("/admin/audit?action=model&from=1970-01-10&to=1970-01-20"))
    assert re.findall(r"thing-(\d+)", page) == ["18", "15", "12", "9"]
    answer = client.get("/admin/audit/export.csv?action=item&to=1970-01-10")
    assert answer.mimetype == "text/csv" and "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(text(answer))))
    assert [row["subject"] for row in rows] == [f"thing-{at}" for at in (8, 7, 5, 4, 2, 1)]
    assert {row["actor"] for row in rows} == {"grace", "'=cmd()"}
    assert rows[0]["details"] == '{"n": 8}' and rows[0]["at"].startswith("1970-01-09T00:00:00")


@pytest.mark.parametrize(
    "query",
    ["cursor=x", f"cursor={write_cursor('-1')}", f"cursor={write_cursor('1 OR 1=1')}",
     "cursor=" + "A" * 5_000, "actor=" + "x" * 5_000, "from=yesterday", "from=2025-02-01&to=2025-01-01",
     "from=0000-01-01"],
)  # fmt: skip
def test_bad_queries_of_the_audit_log_are_refused(client, query):
    for path in ("/admin/audit", "/admin/audit/export.csv"):
        if "cursor" in query and path.endswith("csv"):
            continue
        answer = client.get(f"{path}?{query}")
        assert answer.status_code == 422, query
        assert "expected" in text(answer) and len(answer.data) < 20_000


def test_own_password_is_linked(client):
    assert "/admin/account" in text(client.get("/admin/accounts"))
    assert PASSWORD not in text(client.get("/admin/account"))


def test_what_a_scope_may_do_is_told_as_the_api_asks_for_it():
    erasing = next(one for one in CATALOGUE if one.name == "delete_user")
    assert [scope for scope, text in MEANING.items() if "erases users" in text] == [erasing.scope]
