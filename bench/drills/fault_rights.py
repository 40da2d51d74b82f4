"""Rights and people: what is erased or revoked stays so, and changes that race leave what they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import orjson

from bench.drills.dashboard_client import Dashboard, log_in
from bench.drills.fault_stage import Fault, ask
from bench.installations import Installation
from bench.load import answer, request_bytes

GONE, BYSTANDER = "mallory-4711", "bystander-0815"


def erasure(place: Installation) -> Fault:
    """A user in events, merges, reports and three kinds of rows in quarantine, and another's row."""
    log = place.folder / "odd.jsonl"
    rows: list[Any] = [
        {"uid": "u", "sku": "tea", "ts": 1_700_000_000_000},
        {"uid": GONE, "sku": "tea", "ts": "no time"},
        {"uid": GONE, "sku": "tea", "ts": "no time", "more": {"who": [GONE]}},
        [GONE, "tea", "an array"],
        {"uid": BYSTANDER, "sku": GONE, "ts": "no time"},
    ]
    log.write_bytes(b"\n".join(orjson.dumps(row) for row in rows) + b"\n")
    place.done(
        "events", "import", log.name, "--map", "user=uid,item=sku,timestamp=ts", "--unit", "ms"
    )
    own = [{"user_id": GONE, "item_id": f"P{n % 60:04d}"} for n in range(300)]
    chain = [{"user_id": f"{GONE}-{n}", "item_id": "P0001"} for n in range(3)]
    with place.serving() as (port, _):
        ask(port, place.asks("/events", own + chain))
        for into, other in (
            (f"{GONE}-1", f"{GONE}-2"),
            (f"{GONE}-0", f"{GONE}-1"),
            (GONE, f"{GONE}-0"),
        ):
            ask(port, place.asks(f"/users/{into}/merge", {"from": other}))
        place.refreshed(port)
    before = place.rows_with(GONE)
    place.done("users", "delete", GONE)
    left, anothers = place.rows_with(GONE), place.rows_with(BYSTANDER)
    figures = {"rows_before": before, "rows_left": left, "anothers_row": anothers}
    held = left == anothers == {"rejected_events": 1}  # which names him as its item
    return Fault("a user is erased", held, figures)


def races(place: Installation, rounds: int = 10) -> Fault:
    """Changes that look first and then act, by several at once."""
    other = place.done("admin", "create", "other", "--role", "admin")["password"]
    circles = queued = demoted = tried = 0
    with place.serving(workers=2) as (port, _):
        for n in range(rounds):
            for name in ("a", "b", "c"):
                ask(port, place.asks("/events", {"user_id": f"{name}{n}", "item_id": "P0001"}))
            circle = ((f"a{n}", f"b{n}"), (f"b{n}", f"c{n}"), (f"c{n}", f"a{n}"))
            merges = [place.asks(f"/users/{into}/merge", {"from": one}) for into, one in circle]
            circles += _at_once([partial(ask, port, one) for one in merges])[200] == 3
            run = place.asks("/jobs/retrain/run", {})
            queued += _at_once([partial(ask, port, run)] * 4)[202] > 1
            _, jobs = answer(port, place.asks("/jobs"))
            for one in jobs["runs"]:
                ask(port, place.asks(f"/jobs/runs/{one['run_id']}/cancel", {}))
        passwords = {"admin": place.admin_password, "other": other}
        for _ in range(rounds):
            demoted += _demote_each_other(port, passwords)
            if demoted:
                break
        tried = _at_once([partial(log_in, port, "nobody")] * 16)[403]
    figures = {
        "rounds": rounds,
        "merged_in_a_circle": circles,
        "queued_more_than_once": queued,
        "no_admin_left": demoted,
        "passwords_tried": tried,
    }
    held = not (circles or queued or demoted) and tried <= 5
    return Fault("changes that race", held, figures)


def _at_once(changes: Sequence[Callable[[], int]]) -> Counter[int]:
    """The statuses of changes that begin at the same moment."""
    barrier = Barrier(len(changes))

    def change(one: Callable[[], int]) -> int:
        barrier.wait(60)
        return one()

    with ThreadPoolExecutor(len(changes)) as pool:
        return Counter(pool.map(change, changes))


def _demote_each_other(port: int, passwords: Mapping[str, str]) -> bool:
    """Whether two admins both made a viewer of the other; else the one who is left undoes it."""
    browsers = {name: Dashboard(port) for name in passwords}
    others = dict(zip(passwords, reversed(list(passwords)), strict=True))
    changes = []
    for name, browser in browsers.items():
        browser.log_in(name, passwords[name])
        token = browser.token("/admin/accounts")
        changes.append(partial(_give_role, browser, others[name], "viewer", token))
    if _at_once(changes)[303] == 2:
        return True
    for name, other in others.items():
        browser = Dashboard(port)
        browser.log_in(name, passwords[name])
        if browser.get("/admin/accounts")[0] == 200:
            token = browser.token("/admin/accounts")
            _give_role(browser, other, "admin", token)
    return False


def _give_role(browser: Dashboard, account: str, role: str, token: str) -> int:
    return browser.send(f"/admin/accounts/{account}/role", {"role": role}, token)[0]


def restored_rights(place: Installation) -> Fault:
    """A backup, a key that is revoked and a session that is closed since, and the backup restored."""
    key = place.done("keys", "create", "leaked", "--scope", "read")["key"]
    leaked = request_bytes("/api/v1/items/popular", key)
    backup = str(place.folder / "backup.zip")
    with place.serving() as (port, _):
        browser = Dashboard(port)
        browser.log_in("admin", place.admin_password)
        before = ask(port, leaked), browser.get("/admin/overview")[0]
        place.done("backup", backup)
        place.done("keys", "revoke", key.split("_")[1])  # by its id
        cookies = dict(browser.cookies)
        browser.send("/admin/logout", {}, browser.token("/admin/overview"))
        browser.cookies = cookies
        closed = ask(port, leaked), browser.get("/admin/overview")[0]
    place.done("restore", backup, "--replace")
    with place.serving() as (port, _):
        browser.port = port
        after = ask(port, leaked), browser.get("/admin/overview")[0]
    figures = {
        "key": {"before": before[0], "revoked": closed[0], "restored": after[0]},
        "session": {"before": before[1], "closed": closed[1], "restored": after[1]},
    }
    held = before == (200, 200) and closed[0] == 401 and after[0] == 401 and after[1] != 200
    return Fault("a restore after a key and a session were ended", held, figures)
