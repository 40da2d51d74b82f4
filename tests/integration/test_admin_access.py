"""Accounts, sessions, CSRF and roles of the dashboard, over real databases."""

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from itertools import islice

import pytest
from sqlalchemy import select

from recsys.commands import credentials
from recsys.config import Settings
from recsys.storage.entities import account_rows, audit_rows, passwords
from recsys.storage.entities.account_rows import ACCOUNT_FAILURES, ADDRESS_FAILURES, LOCK_US
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.entities.passwords import hash_password, is_password
from recsys.storage.schema.tables import admin_sessions, login_failures
from recsys.web.admin.access import OPEN

PASSWORD = "correct horse battery"
ROLES = account_rows.ROLES


@pytest.fixture
def admin(bare, add_account):
    """The service with an account of each role."""
    with bare.database.begin() as connection:
        for role in ROLES:
            add_account(connection, f"a-{role}", role)
    return bare


@pytest.fixture
def quick_nobody(monkeypatch):
    """A name that does not exist costs no more than the accounts here do."""
    monkeypatch.setattr(passwords, "NOBODY", passwords.NOBODY.replace("15$8$3", "4$1$1"))


def field(page, name="csrf_token"):
    return re.search(rf'name="{name}" value="([^"]+)"', page.get_data(as_text=True)).group(1)


def log_in(service, name, password=PASSWORD, next_=""):
    client = service.app.test_client()
    page = client.get(f"/admin/login{next_}")
    form = {"name": name, "password": password, "csrf_token": field(page)}
    return client, client.post(f"/admin/login{next_}", data=form)


def routes(app):
    return [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/admin")]


def path_of(rule):
    """The rule with some value in each of its places."""
    return re.sub(r"<int:\w+>", "1", re.sub(r"<(?!int:)(?:\w+:)?\w+>", "x", rule.rule))


def test_every_route_declares_its_role_and_asks_for_a_session(admin):
    open_endpoints = set()
    client = admin.app.test_client()
    for rule in routes(admin.app):
        role = getattr(admin.app.view_functions[rule.endpoint], "admin_role", None)
        assert role in (*ROLES, OPEN), f"{rule} declares no role"
        if role == OPEN:
            open_endpoints.add(rule.endpoint)
            continue
        for method in rule.methods - {"OPTIONS", "HEAD"}:
            answer = client.open(path_of(rule), method=method)
            assert answer.status_code in (302, 401), (method, rule.rule)
            where = answer.headers.get("Location") or answer.headers["HX-Redirect"]
            assert where.startswith("/admin/login")
    assert open_endpoints == {"admin_login.login", "admin_login.log_in"}


def test_every_change_asks_for_the_token_and_the_role(admin):
    clients = {role: log_in(admin, f"a-{role}")[0] for role in ROLES}
    for rule in routes(admin.app):
        role = admin.app.view_functions[rule.endpoint].admin_role
        if role == OPEN:
            continue
        for method in rule.methods - {"OPTIONS", "HEAD"}:
            if method != "GET":
                for client in clients.values():
                    answer = client.open(path_of(rule), method=method)
                    assert answer.status_code == 403, (method, rule.rule)
                    assert "load the page again" in answer.get_data(as_text=True)
            for lower in ROLES[: ROLES.index(role)]:
                client = clients[lower]
                token = field(client.get("/admin/account"))
                answer = client.open(path_of(rule), method=method, headers={"X-CSRF-Token": token})
                assert answer.status_code == 403, (method, rule.rule, lower)
                assert f"needs the role {role}" in answer.get_data(as_text=True)


def test_a_state_changing_route_is_never_open_to_get(admin):
    for rule in routes(admin.app):
        function = admin.app.view_functions[rule.endpoint]
        assert rule.methods - {"OPTIONS", "HEAD"} in ({"GET"}, {"POST"}), rule
        assert function.__doc__


def test_logging_in_and_out(admin):
    client, answer = log_in(admin, "a-viewer")
    assert answer.status_code == 303
    cookie = next(c for c in answer.headers.getlist("Set-Cookie") if c.startswith("recsys_admin="))
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    with admin.database.connect() as connection:
        stored = connection.execute(select(admin_sessions)).one()
    assert len(token) == 43  # 256 bits
    assert token not in str(stored)
    assert stored.token_sha256 == hashlib.sha256(token.encode()).hexdigest()
    page = client.get("/admin/overview")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    out = client.post("/admin/logout", data={"csrf_token": field(page)})
    assert out.status_code == 303
    assert client.get("/admin/overview").status_code == 302
    client.set_cookie("recsys_admin", token)  # the cookie alone is worth nothing any more
    assert client.get("/admin/overview").status_code == 302
    with admin.database.connect() as connection:
        lines = audit_rows.list_audit(connection, actor="a-viewer")
    assert [line.action for line in lines] == ["session.end", "session.begin"]
    assert token not in str(lines)


def test_over_https_the_cookie_is_of_this_host_alone(admin):
    client = admin.app.test_client()
    page = client.get("/admin/login", base_url="https://shop.example")
    form = {"name": "a-viewer", "password": PASSWORD, "csrf_token": field(page)}
    answer = client.post("/admin/login", base_url="https://shop.example", data=form)
    cookies = answer.headers.getlist("Set-Cookie")
    assert {c.partition("=")[0] for c in cookies} >= {"__Host-recsys_admin"}
    for cookie in cookies:
        assert cookie.startswith("__Host-"), cookie
        for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
            assert f"; {attribute}" in cookie, cookie
        assert "Domain" not in cookie


@pytest.mark.parametrize(
    "asked",
    ["//evil.example", "https://evil.example", "/admin/..//evil.example", "/admin/\\evil.example",
     "/elsewhere", "/admin/login"],
)  # fmt: skip
def test_after_logging_in_nobody_is_sent_elsewhere(admin, asked):
    _, answer = log_in(admin, "a-viewer", next_=f"?next={asked}")
    assert answer.headers["Location"] == "/admin/"


def test_a_page_asked_for_is_gone_on_with(admin):
    asked = admin.app.test_client().get("/admin/overview?range=30d").headers["Location"]
    assert asked == "/admin/login?next=/admin/overview%3Frange%3D30d"
    _, answer = log_in(admin, "a-viewer", next_=asked.partition("login")[2])
    assert answer.headers["Location"] == "/admin/overview?range=30d"


def test_a_session_that_ended_goes_on_where_it_was(admin):
    client = admin.app.test_client()
    here, there = (
        "http://localhost/admin/jobs?job=tune",
        "/admin/login?next=/admin/jobs%3Fjob%3Dtune",
    )
    part = {"HX-Request": "true", "HX-Current-URL": here}
    answer = client.get("/admin/jobs/runs", headers=part)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, there)
    form = {"Referer": here, "Sec-Fetch-Mode": "navigate"}
    answer = client.post("/admin/jobs/tune/run", headers=form)
    assert (answer.status_code, answer.headers["Location"]) == (303, there)
    elsewhere = {**form, "Referer": "http://evil.example/admin/jobs"}
    answer = client.post("/admin/jobs/tune/run", headers=elsewhere)
    assert answer.headers["Location"] == "/admin/login"


def test_log_in_needs_the_token_of_its_form(admin):
    client = admin.app.test_client()
    assert client.post("/admin/login", data={"name": "a-admin"}).status_code == 403
    token = field(client.get("/admin/login"))
    other = admin.app.test_client()
    other.get("/admin/login")
    form = {"name": "a-admin", "password": PASSWORD, "csrf_token": token}
    assert other.post("/admin/login", data=form).status_code == 403
    crossed = client.post("/admin/login", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert crossed.status_code == 403


def test_too_many_failures_lock_an_account_whether_it_exists_or_not(admin, quick_nobody):
    for name in ("a-admin", "nobody"):
        answers = [log_in(admin, name, "wrong password")[1] for _ in range(ACCOUNT_FAILURES)]
        assert {answer.status_code for answer in answers} == {403}
        assert all("Incorrect name or password" in a.get_data(as_text=True) for a in answers)
        _, answer = log_in(admin, name)
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) <= LOCK_US / 1e6
        assert "Too many attempts" in answer.get_data(as_text=True)
    assert log_in(admin, "a-viewer")[1].status_code == 303  # others go on
    credentials.set_password(admin.database, CLI, "a-admin", PASSWORD, 1)
    assert log_in(admin, "a-admin")[1].status_code == 303


def test_too_many_failures_lock_an_address_over_all_workers(admin, Service, quick_nobody):
    """Each of another name; two services over one database are what two workers are."""
    with closing(Service(admin.database, admin.app.extensions["recsys"].settings)) as other:
        workers = (admin, other)
        names = [f"nobody-{number}" for number in range(ADDRESS_FAILURES)]
        answers = [log_in(workers[n % 2], name, "wrong")[1] for n, name in enumerate(names)]
        assert {answer.status_code for answer in answers} == {403}
        for service in workers:
            assert log_in(service, "a-viewer")[1].status_code == 429
            client = service.app.test_client()
            client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
            form = {"name": "a-viewer", "password": PASSWORD}
            form["csrf_token"] = field(client.get("/admin/login"))
            assert client.post("/admin/login", data=form).status_code == 303  # from elsewhere


def test_sixteen_log_ins_at_once_leave_threads_for_other_requests(admin, monkeypatch):
    """Two of them wait for a hash; the others are told to come again, and are not counted."""
    begun, goes_on = threading.Event(), threading.Event()

    def slow(*_, **__):
        begun.set()
        assert goes_on.wait(60)
        return bytes(32)

    forms = []
    for number in range(16):
        client = admin.app.test_client()
        token = field(client.get("/admin/login"))
        form = {"name": f"somebody-{number}", "password": "wrong", "csrf_token": token}
        forms.append((client, form))
    monkeypatch.setattr(passwords.hashlib, "scrypt", slow)
    with ThreadPoolExecutor(16) as crowd:
        answers = [crowd.submit(c.post, "/admin/login", data=form) for c, form in forms]
        assert begun.wait(60)
        refused = list(islice(as_completed(answers), 14))
        assert admin.client.get("/health/live").status_code == 200
        goes_on.set()
    assert {done.result().status_code for done in refused} == {429}
    assert all(1 <= int(done.result().headers["Retry-After"]) <= 5 for done in refused)
    assert [a.result().status_code for a in answers].count(403) == passwords.PLACES
    with admin.database.connect() as connection:
        tried = connection.execute(select(login_failures)).all()
    assert len(tried) == passwords.PLACES + 1  # names, and the address


def test_an_ipv6_network_counts_as_one_address(admin, quick_nobody):
    def tried(address, name, password="wrong"):
        client = admin.app.test_client()
        client.environ_base["REMOTE_ADDR"] = address
        form = {"name": name, "password": password}
        form["csrf_token"] = field(client.get("/admin/login"))
        return client.post("/admin/login", data=form).status_code

    for number in range(ADDRESS_FAILURES):
        assert tried(f"2001:db8:0:1:{number:x}::1", f"nobody-{number}") == 403
    assert tried("2001:db8:0:1:ffff::9", "a-viewer", PASSWORD) == 429
    assert tried("2001:db8:0:2::1", "a-viewer", PASSWORD) == 303
    assert tried("2001:db8:0:2::77", "a-viewer", PASSWORD) == 303  # the failures it has are its own


def test_parameters_named_as_the_frameworks_own_are_refused(admin):
    client, _ = log_in(admin, "a-admin")
    odd = "endpoint=x&_method=POST&_external=1&_scheme=x&_anchor=y&values=1&self=2"
    for rule in routes(admin.app):
        if "GET" in rule.methods and "logout" not in rule.rule:
            for query in (odd, f"{odd}&cursor=", f"{odd}&sort=title"):
                answer = client.get(f"{path_of(rule)}?{query}")
                assert answer.status_code in (404, 422), (rule.rule, query)


def test_the_page_after_a_log_in_stays_below_admin(admin):
    for asked, expected in (
        ("/admin/items?q=tea", "/admin/items?q=tea"),
        ("/admin/users?user_id=..%2F", "/admin/users?user_id=../"),
        ("/admin/../shop", "/admin/"),
        ("/admin/%252e%252e/shop", "/admin/"),
        ("/admin/x/%252E./%252e%252e/shop", "/admin/"),
        ("/admin/./../shop", "/admin/"),
        ("/admin%252f..%252fshop", "/admin/"),
        ("/admin/..%5cshop", "/admin/"),
        ("/admin/%C2%9Bx", "/admin/"),
        ("/admin/login?next=x", "/admin/"),
        ("/adminx/items", "/admin/"),
        ("/admin", "/admin/"),
    ):
        _, answer = log_in(admin, "a-viewer", next_=f"?next={asked}")
        assert answer.headers["Location"] == expected, asked


def test_a_changed_password_ends_every_session(admin):
    clients = [log_in(admin, "a-operator")[0] for _ in range(2)]
    page = clients[0].get("/admin/account")
    form = {"csrf_token": field(page), "old": PASSWORD, "new": "another long one", "again": "no"}
    assert clients[0].post("/admin/account/password", data=form).status_code == 422
    form["again"] = form["new"]
    assert clients[0].post("/admin/account/password", data=form).status_code == 303
    assert [client.get("/admin/overview").status_code for client in clients] == [302, 302]
    assert log_in(admin, "a-operator")[1].status_code == 403
    assert log_in(admin, "a-operator", "another long one")[1].status_code == 303


def test_a_changed_role_ends_every_session(admin):
    clients = [log_in(admin, "a-viewer")[0] for _ in range(2)]
    assert [client.get("/admin/overview").status_code for client in clients] == [200, 200]
    with admin.database.begin() as connection:
        account_rows.set_role(connection, "a-viewer", "operator")
    assert [client.get("/admin/overview").status_code for client in clients] == [302, 302]


def test_disabled_accounts_are_out_at_once(admin):
    client, _ = log_in(admin, "a-operator")
    with admin.database.begin() as connection:
        account_rows.set_disabled(connection, "a-operator", True, 2)
    assert client.get("/admin/overview").status_code == 302
    assert log_in(admin, "a-operator")[1].status_code == 403


def test_errors_are_pages_here_and_problems_there(admin):
    client, _ = log_in(admin, "a-viewer")
    page = client.get("/admin/nothing-here")
    assert page.status_code == 404 and page.mimetype == "text/html"
    assert "nothing at this address" in page.get_data(as_text=True)
    part = client.get("/admin/nothing-here", headers={"HX-Request": "true"})
    assert part.mimetype == "application/problem+json"
    assert client.get("/admin/overview?range=<b>").status_code == 422
    assert b"<b>" not in client.get("/admin/overview?range=<b>").data.partition(b"<main")[2][:2000]
    assert client.get("/api/v1/nothing").mimetype == "application/problem+json"


def test_sessions_run_out(database, tmp_path, Service, add_account):
    settings = Settings(registry={"path": tmp_path / "models"}, auth={"session_idle_minutes": 1e-6})
    with closing(Service(database, settings)) as service:
        with database.begin() as connection:
            add_account(connection, "ada", "viewer")
        client, answer = log_in(service, "ada")
        assert answer.status_code == 303
        assert client.get("/admin/overview").status_code == 302


def test_sessions_end_by_idleness_and_by_age(database, add_account):
    with database.begin() as connection:
        add_account(connection, "ada", "viewer")
        token = account_rows.begin_session(connection, "ada", None, 1_000)

        def found(now):
            return account_rows.find_session(connection, token, now, 100, 300)

        assert found(1_099).name == "ada"
        assert found(1_100) is None
        account_rows.touch_session(connection, token, 1_250)
        assert found(1_299) is not None
        assert found(1_301) is None
        assert account_rows.delete_old_sessions(connection, 1_301, 100, 300) == 1


def test_the_last_admin_stays(database, add_account):
    with database.begin() as connection:
        add_account(connection, "ada", "admin")
        for change in (
            lambda: account_rows.set_role(connection, "ada", "viewer"),
            lambda: account_rows.set_disabled(connection, "ada", True, 1),
        ):
            with pytest.raises(account_rows.ConflictError, match="only admin"):
                change()


def test_passwords():
    stored = hash_password(PASSWORD)
    assert stored.startswith("scrypt$15$8$3$")
    assert is_password(PASSWORD, stored) and not is_password(PASSWORD + "x", stored)
    assert hash_password(PASSWORD) != stored
    assert not is_password(PASSWORD, None)
    for bad in ("short", "x" * 201):
        with pytest.raises(account_rows.InputError, match="expected 10 to 200") as caught:
            hash_password(bad)
        assert bad not in str(caught.value)


def test_changes_over_rest_are_in_the_audit_log(service):
    service.client.get("/admin/login")
    champion = service.get("/models")["models"][0]["version"]
    service.post(f"/models/{champion}/promote", {"reason": "again"})
    service.call("POST", "/jobs/refresh/run", status=202)
    service.call("DELETE", "/users/somebody-with-a-name")
    with service.database.connect() as connection:
        lines = audit_rows.list_audit(connection)
    assert [line.action for line in lines] == ["user.erase", "job.run", "model.promote"]
    assert all(line.role == "key" and line.request_id and line.address for line in lines)
    assert lines[2].subject == champion and lines[2].details["reason"] == "again"
    assert "somebody" not in str(lines)
    with service.database.connect() as connection:
        assert [line.action for line in audit_rows.list_audit(connection, action="model")] == [
            "model.promote"
        ]
