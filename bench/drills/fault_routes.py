"""Every route with every key, session and role, and with hostile values in each place of a request."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPMethod
from typing import Any

import orjson

from bench.drills.fault_stage import Fault, Stage
from bench.servers import running
from recsys.config import Settings
from recsys.events.times import to_us
from recsys.storage.engine.database import Database
from recsys.storage.entities import account_rows, key_rows
from recsys.storage.entities.account_rows import ROLES
from recsys.storage.entities.passwords import hash_password
from recsys.web.admin.access import CSRF_HEADER, OPEN, SAFE_METHODS
from recsys.web.app import create_app
from recsys.web.operations import CATALOGUE, Operation

ORIGIN = "https://shop.example"
UNKNOWN = "rk_000000000000_" + "x" * 43
LEAKS = ("Traceback", "SELECT ", "sqlite3", "psycopg", "/tmp/", "site-packages", "recsys/")  # noqa: S108
INJECTED = "X-Injected"
VALUES = (
    "../../etc/passwd",
    "%00",
    "\x00",
    "' OR 1=1 --",
    "\u202e\U0001f600",
    "a" * 300,
    "{{7*7}}",
    "\x7f",
    f"x\r\n{INJECTED}: 1",
)
NUMBERS = ("1", "0", str(2**63), "9" * 200)
# Headers that HTTP allows, each odd in its own way.
ODD: tuple[dict[str, str], ...] = (
    {},
    {"X-Request-ID": "\u202e" * 50, "User-Agent": "\x80\xff", "Accept": "é/ü; q=nan"},
    {"Content-Type": "text/plain; charset=\xff"},
    {"Content-Type": "application/json; charset=utf-7"},
    {"X-Request-ID": "x" * 8_000},
    {"Host": '"><script>', "X-Forwarded-For": "' OR 1=1 --", "X-Forwarded-Proto": "gopher"},
    {"traceparent": "00-" + "f" * 500, "Accept-Language": "x," * 2_000},
    {"Cookie": "recsys_admin=" + "x" * 4_000, "If-None-Match": "*", "Range": "bytes=-1"},
)  # fmt: skip
# Headers that HTTP does not allow, or the service's bounds.
BROKEN = (
    f"X-Request-ID: a\n{INJECTED}: 1",
    f"X-Request-ID: a\r{INJECTED}: 1",
    "X-Request-ID: " + "x" * 10_000,
    "X-Request-ID: a\x00b",
    "X-Request-ID : a",
    "Content-Length: -1",
    "Content-Length: 1\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked, identity",
    "\r\n".join(f"X-{number}: y" for number in range(200)),
)


@dataclass(frozen=True)
class Caller:
    """Who asks, and whom the service should take that for."""

    name: str
    headers: dict[str, str]
    scopes: tuple[str, ...] = ()  # what it may use
    refusal: int = 403

    def may(self, operation: Operation) -> bool:
        """By what the operation declares."""
        if operation.scope is None or operation.scope in self.scopes or "admin" in self.scopes:
            return True
        return operation.collect and "collect" in self.scopes


@dataclass
class Found:
    """What came back."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, kind: str, is_so: bool, what: str) -> None:
        if is_so:
            self.counts[kind] += 1
            self.examples.append(f"{kind}: {what}")


def hostile_routes(stage: Stage, rounds: int = len(VALUES)) -> Fault:
    """All that follows against a server of its own."""
    more = {"RECSYS_AUTH__COLLECT_PER_MINUTE": "1000000"}
    with running(stage.url, stage.registry, workers=2, **more) as (port, server):
        fault = walk_routes(port, stage.url, stage.settings, rounds)
        return Fault(fault.fault, fault.held and server.poll() is None, fault.figures)


def walk_routes(port: int, url: str, settings: Settings, rounds: int) -> Fault:
    """Ask the server at `port` for each operation as each caller, `rounds` times, and for each page
    of the dashboard without session, token or role.

    A caller must be refused what its scopes do not allow, and nothing else.
    """
    found = Found()
    # Of broken requests some are waited for, as if the rest were on its way: for all at once.
    with closing(Database(url)) as database, ThreadPoolExecutor(16) as crowd:
        callers = list(_callers(database))
        app = create_app(settings, database)
        operations = [one for one in CATALOGUE if not one.path.startswith("/admin")]
        number = 0
        broken: list[Future[Found]] = []
        for operation in operations:
            for _ in range(rounds):
                for caller in callers:
                    number += 1
                    _ask_operation(port, operation, caller, number, found)
            caller = callers[number % len(callers)]
            broken.append(crowd.submit(_ask_broken, port, operation, caller, number))
        _ask_pages(port, app, _sessions(port, database), found)
        for asked in broken:
            found.counts += asked.result().counts
            found.examples += asked.result().examples
        app.extensions["recsys"].close()
    names = ("requests", "dashboard_requests", "5xx", "let_in", "kept_out", "leaks")
    figures: dict[str, Any] = {name: found.counts[name] for name in names}
    if found.examples:
        figures["examples"] = found.examples[:5]
    held = not found.examples and all(figures[name] > 100 for name in names[:2])
    return Fault("hostile values on every route, every scope, session and role", held, figures)


def _callers(database: Database) -> Iterator[Caller]:
    yield Caller("nobody", {}, refusal=401)
    yield Caller("an unknown key", {"X-API-Key": UNKNOWN}, refusal=401)
    now_us = to_us(datetime.now(UTC))
    keys = {}
    with database.begin() as connection:
        for scope in key_rows.SCOPES:
            origins = [ORIGIN] if scope == "collect" else []
            key = key_rows.create_key(connection, scope, [scope], now_us, origins)
            keys[scope] = {"X-API-Key": key}
    page = keys.pop("collect")
    for scope, headers in keys.items():
        yield Caller(scope, headers, (scope,))
    yield Caller("collect", {**page, "Origin": ORIGIN}, ("collect",))
    yield Caller("collect without origin", page)
    yield Caller("collect of another origin", {**page, "Origin": "https://evil.example"})


def _ask_operation(
    port: int, operation: Operation, caller: Caller, number: int, found: Found
) -> None:
    path = _address(operation, number)
    body = _body(operation, number)
    # A caller's own headers come last, so that none of the odd ones takes their place.
    headers = {"Content-Type": "application/json", **ODD[number % len(ODD)], **caller.headers}
    status, answer = _send(port, operation.method, path, _lines(headers), body)
    what = f"{operation.method} {operation.path} as {caller.name}: {status}"
    found.counts["requests"] += 1
    _judge(status, answer, caller.headers, operation.statuses, what, found)
    if not caller.may(operation):
        found.note("let_in", status != caller.refusal, what)
    elif caller.name != "collect":  # of a user, or of another's session, a page is refused
        found.note("kept_out", status in (401, 403), what)


def _ask_broken(port: int, operation: Operation, caller: Caller, number: int) -> Found:
    """What is no proper request is refused, whoever sends it."""
    found = Found()
    broken = BROKEN[number % len(BROKEN)]
    lines = [*_lines(caller.headers), broken]
    path = _address(operation, 0)
    status, answer = _send(port, operation.method, path, lines, None)
    what = f"{operation.method} {operation.path} with {broken[:40]!r}: {status}"
    found.counts["requests"] += 1
    _judge(status, answer, caller.headers, operation.statuses, what, found)
    found.note("let_in", status != 0 and not 400 <= status < 500, what)
    return found


def _ask_pages(port: int, app: Any, sessions: dict[str, dict[str, str]], found: Found) -> None:
    for number, rule in enumerate(app.url_map.iter_rules()):
        role = getattr(app.view_functions[rule.endpoint], "admin_role", None)
        if not rule.rule.startswith("/admin"):
            continue
        path = re.sub(r"<int:\w+>", "1", rule.rule)
        path = re.sub(r"<(?:\w+:)?\w+>", _quoted(VALUES[number % len(VALUES)]), path)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            asked: list[tuple[str, dict[str, str], tuple[int, ...]]] = []
            unsafe = method not in SAFE_METHODS
            if role == OPEN:
                asked += [("nobody", {}, (403,))] if unsafe else []
            else:
                asked.append(("nobody", {}, (302, 401)))
                forged = {"Cookie": "recsys_admin=" + "x" * 43, CSRF_HEADER: "0" * 64}
                asked.append(("a forged session", forged, (302, 401)))
                for name, headers in sessions.items():
                    cookie = {"Cookie": headers["Cookie"]}
                    if unsafe:
                        other = sessions[ROLES[ROLES.index(name) - 1]][CSRF_HEADER]
                        asked.append((f"{name} without token", cookie, (403,)))
                        forged = {**cookie, CSRF_HEADER: other}
                        asked.append((f"{name} with another's token", forged, (403,)))
                    if role is None or ROLES.index(name) < ROLES.index(role):
                        asked.append((name, headers, (403, 404)))  # 404: no such address
            for who, headers, expected in asked:
                status, answer = _send(port, method, path, _lines(headers), None)
                what = f"{method} {rule.rule} as {who}: {status}"
                found.counts["dashboard_requests"] += 1
                _judge(status, answer, headers, (), what, found)
                to_login = status != 302 or "location: /admin/login" in answer.lower()
                found.note("let_in", status not in expected or not to_login, what)


def _judge(
    status: int,
    answer: str,
    headers: dict[str, str],
    documented: tuple[int, ...],
    what: str,
    found: Found,
) -> None:
    found.note("5xx", status >= 500 and status not in documented, what)
    secret = headers.get("X-API-Key", UNKNOWN).split("_", 2)[2]  # which may hold a "_" itself
    leaks = any(leak in answer for leak in LEAKS) or secret in answer
    head = answer.partition("\r\n\r\n")[0].lower()
    found.note("leaks", leaks or f"\n{INJECTED.lower()}:" in head, what)


def _sessions(port: int, database: Database) -> dict[str, dict[str, str]]:
    """Of an account of each role: the cookie of its session and the token of its forms."""
    now_us = to_us(datetime.now(UTC))
    hashed = hash_password("0123456789")
    sessions = {}
    for role in ROLES:
        with database.begin() as connection:
            account_rows.create_account(connection, f"x-{role}", hashed, role, now_us)
            token = account_rows.begin_session(connection, f"x-{role}", None, now_us)
        headers = {"Cookie": f"recsys_admin={token}"}
        _, page = _send(port, "GET", "/admin/account", _lines(headers), None)
        match = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert match is not None, page[:200]
        sessions[role] = {**headers, CSRF_HEADER: match.group(1)}
    return sessions


def _address(operation: Operation, number: int) -> str:
    """The operation's address with a hostile value in each of its places, and in one of its query."""
    value = VALUES[number % len(VALUES)]
    path = re.sub(r"<int:\w+>", NUMBERS[number % len(NUMBERS)], operation.path)
    path = re.sub(r"<(?:\w+:)?\w+>", _quoted(value), path)
    names = list(operation.query.model_fields) if operation.query is not None else []
    if number % 2 or not names:
        return path
    return f"{path}?{names[number // 2 % len(names)]}={_quoted(value)}"


def _body(operation: Operation, number: int) -> bytes | None:
    value = VALUES[number % len(VALUES)]
    if operation.body is None:
        return None
    bodies: tuple[Any, ...] = (
        [{"item_id": value}],
        {"user_id": value, "item_id": value, "session_id": value},
        _poisoned(operation.example, value),
        b'{"user_id": "\xff\xfe", "item_id": "x"}',
    )
    body = bodies[number % len(bodies)]
    return body if isinstance(body, bytes) else orjson.dumps(body)


def _poisoned(example: Any, value: str) -> Any:
    """`example` with `value` in place of each text."""
    if isinstance(example, dict):
        return {name: _poisoned(part, value) for name, part in example.items()}
    if isinstance(example, list):
        return [_poisoned(part, value) for part in example]
    return value if isinstance(example, str) else example


def _quoted(value: str) -> str:
    return "".join(f"%{byte:02X}" for byte in value.encode())


def _lines(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def _send(
    port: int, method: str, path: str, lines: list[str], body: bytes | None
) -> tuple[int, str]:
    """Status and the whole answer, head included; 0 where the connection broke."""
    assert method in HTTPMethod.__members__
    host = [] if any(line.startswith("Host:") for line in lines) else ["Host: x"]
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = [f"{method} {path} HTTP/1.1", *host, *lines, *length, "Connection: close"]
    request = "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(request)
            while more := connection.recv(65_536):
                answer += more
        except ConnectionError:
            pass
    if not answer.startswith(b"HTTP/1.1 "):
        return 0, ""
    return int(answer[9:12]), answer.decode(errors="replace")
