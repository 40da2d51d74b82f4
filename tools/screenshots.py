"""Pictures of every page of the dashboard, and of /shop where it is served, on a demo shop's data.

Each at 1280 and 390 px, light and dark: DIR/<page>-<width>-<theme>.png. The pages are read off the
application's own routes, so that a new one is not forgotten. Ends with 1 where a page writes an error
to the console, asks another host, cannot be shown, or has a fault that `tools/page_checks.py` finds: what
is clipped, cut or too wide, another style of date, a word that is ruled out, unseen focus, or whatever axe
finds. Run with: make screenshots SCREENSHOTS=DIR

With --documents, only the pictures that documents show, into docs/pictures: make pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from recsys.config import Settings, load_settings
from recsys.storage.engine.database import Database
from recsys.storage.entities import import_rows, item_rows, job_rows, version_rows
from recsys.web.app import create_app

sys.path.insert(0, str(Path(__file__).parents[1]))
from tools import page_checks

WIDTHS = {1280: 900, 390: 844}  # width -> height, px
THEMES = ("light", "dark")
SMALL = ("--products", "400", "--shoppers", "1500", "--events", "40000")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Where the pictures of documents go, their size, and name of the picture -> name of the page.
DOCUMENTS = Path(__file__).parents[1] / "docs" / "pictures"
FRAME = {"width": 1280, "height": 760}
PICTURES = {"shop": "shop", "overview": "overview", "dashboard": "models-version"}
UNSEEN = {"upload_id"}  # names in addresses that are no page's
ANSWERS = 120  # recommendations asked for, so that charts have something to show
WAIT_SECONDS = 180
# What a page is asked with, where it shows more with a query than without.
QUERIES = {
    "admin_overview.index": "range=24h",
    "admin_models.compare": "version={versions[0]}&version={versions[1]}",
    "admin_what_if.index": "item={items[0]}&item={items[1]}",
    "admin_users.show": "user_id={user_id}",
    "admin_users.recommended": "user_id={user_id}",
    "admin_users.answer": "recommendation_id={recommendation_id}",
    "admin_items.show": "item_id={item_id}",
}
BAD_ROWS = "uid,sku,ts\n" + "".join(
    f"visitor-{at},{'' if at % 3 == 0 else 'lamp'},{'soon' if at % 3 == 1 else '2025-01-01T00:00:00Z'}\n"
    for at in range(90)
)


class Demo:
    """A demo shop that is served, with a scheduler, and what is known of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.settings: Settings = load_settings(self.config)
        self.database = Database(self.settings.database.url.get_secret_value())
        self.base = f"http://127.0.0.1:{self.settings.serving.port}"
        self.user = self.name = self.password = self.key = ""

    def recsys(self, *words: str) -> dict[str, Any]:
        """A command of the demo's own configuration; its JSON answer."""
        command = [sys.executable, "-m", "recsys", *words, "--config", str(self.config), "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        return json.loads(done.stdout.splitlines()[-1])

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    def serves(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.base + path, timeout=60) as answer:  # noqa: S310
                return answer.status == 200
        except OSError:  # refused, reset, or too slow as yet
            return False

    def examples(self) -> dict[str, Any]:
        """A value for each name that may stand in an address."""
        with self.database.connect() as connection:
            versions = [row.version for row in version_rows.list_versions(connection, 2)]
            items = [item.item_id for item in item_rows.list_items(connection, None, None, 2)]
            runs = [run.id for run in job_rows.list_runs(connection, 5)]
            trained = [run.id for run in job_rows.list_runs(connection, 1, job="retrain")]
            imports = import_rows.list_imports(connection, 1)
        answer = self.ask("GET", f"/api/v1/users/{self.user}/recommendations?k=10&explain=true")
        time.sleep(2)  # until the answer is stored
        return {
            "experiment": self.experiment(),
            "name": self.scenario(),
            "version": versions[0],
            "versions": [*versions, *versions],
            "item_id": items[0],
            "items": items,
            "run_id": [*trained, *runs][0],
            "import_id": imports[0].id,
            "user_id": self.user,
            "key": f"u:{self.user}",
            "recommendation_id": answer["recommendation_id"],
        }

    def experiment(self) -> str:
        """The newest experiment; a draft where there is none."""
        known = self.ask("GET", "/api/v1/experiments?limit=1")["experiments"]
        if not known:
            arms = [{"name": "now"}, {"name": "popular", "hold_out": True}]
            known = [self.ask("POST", "/api/v1/experiments", {"name": "hold-out", "arms": arms})]
        return str(known[0]["name"])

    def scenario(self) -> str:
        """A scenario with two versions, so that its history has a difference to show."""
        rules = {"filter": "price<50", "boosts": [{"when": "price<20", "factor": 1.5}]}
        for more in ({}, {"diversity": 0.3, "promote": {"when": "price<30", "share": 0.25}}):
            self.ask("PUT", "/api/v1/scenarios/landing", {"k": 12, **rules, **more})
        return "landing"


def main() -> int:
    """Write the pictures; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, nargs="?", help="folder that the pictures go to")
    parser.add_argument("--documents", action="store_true", help="take those of docs/pictures")
    parser.add_argument("--demo", type=Path, help="folder of a demo that was made before")
    parser.add_argument("--only", default="", help="pages whose name holds this")
    given = parser.parse_args()
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        raise SystemExit("no browser: install Debian's chromium")
    if given.documents == (given.pictures is not None):
        parser.error("name a folder, or --documents")
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="recsys-screenshots-") as made,
        serving(
            given.demo or Path(made), None if given.demo else () if given.documents else SMALL
        ) as demo,
        sync_playwright() as playwright,
    ):
        pages = addresses(demo, given.only)
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        if given.documents:
            take_documents(browser, demo, pages)
            browser.close()
            return 0
        wrong = [
            line
            for width in WIDTHS
            for theme in THEMES
            for line in take(browser, demo, pages, given.pictures, width, theme)
        ]
        browser.close()
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    sys.stdout.write(f"{len(list(given.pictures.glob('*.png')))} pictures in {given.pictures}\n")
    return 1 if wrong else 0


@contextmanager
def serving(folder: Path, size: Sequence[str] | None) -> Iterator[Demo]:
    """The demo of `folder`, made first unless `size` is None; served and scheduled, with some traffic
    behind it.
    """
    fresh = size is not None
    if size is not None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        command = [sys.executable, "-m", "recsys", "demo", "--no-serve", "--json", *size]
        command += ["--folder", str(folder), "--port", port]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        (folder / "demo.json").write_text(done.stdout.splitlines()[-1])
    demo = Demo(folder)
    demo.user = json.loads((folder / "demo.json").read_text())["example_user"]
    demo.name = "ada" if fresh else f"ada-{os.getpid()}"
    demo.password = demo.recsys("admin", "create", demo.name, "--role", "admin")["password"]
    demo.key = demo.recsys("keys", "create", "shop backend", "--scope", "admin")["key"]
    shop = demo.recsys(
        *("keys", "create", "storefront", "--scope", "collect", "--origin", demo.base)
    )
    environment = {**os.environ, "RECSYS_SERVING__STOREFRONT_KEY": shop["key"]}
    own = [sys.executable, "-m", "recsys"]
    config = ["--config", str(demo.config)]
    processes = [
        subprocess.Popen([*own, *words, *config], env=environment, stderr=subprocess.DEVNULL)  # noqa: S603
        for words in (("serve", "--workers", "1"), ("schedule",))
    ]
    try:
        until(lambda: demo.serves("/health/ready"), "the demo does not answer")
        traffic(demo)
        yield demo
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=60)
        demo.database.close()


def traffic(demo: Demo) -> None:
    """Answers, clicks on them, repeats and bad rows; then what the refresh job makes of it."""
    clicks = []
    for at in range(ANSWERS):
        user = demo.user[: -len(str(at))] + str(at)
        answer = demo.ask("GET", f"/api/v1/users/{user}/recommendations?k=10")
        if answer["items"] and at % 4 == 0:
            shown = answer["items"][at % len(answer["items"])]
            clicks.append(
                {
                    "user_id": user,
                    "item_id": shown["item_id"],
                    "recommendation_id": answer["recommendation_id"],
                    "event_id": f"click-{at}",
                }
            )
    demo.ask("POST", "/api/v1/events", clicks)
    demo.ask("POST", "/api/v1/events", [*clicks[:5], {"user_id": "u", "timestamp": "soon"}])
    bad = demo.folder / "clicks-of-the-old-shop.csv"
    bad.write_text(BAD_ROWS)
    words = ("events", "import", str(bad), "--map", "user=uid,item=sku,timestamp=ts")
    command = [sys.executable, "-m", "recsys", *words, "--config", str(demo.config)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # noqa: S603
    time.sleep(12)  # the workers write their sums every ten seconds
    run = demo.ask("POST", "/api/v1/jobs/refresh/run")
    address = f"/api/v1/jobs/runs/{run['run_id']}"
    until(lambda: demo.ask("GET", address)["state"] == "succeeded", "the refresh does not end")


def addresses(demo: Demo, only: str) -> dict[str, str]:
    """Name of the picture -> address, of every page that is shown by GET."""
    app = create_app(demo.settings, demo.database)
    known, found = demo.examples(), {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if not rule.rule.startswith("/admin/") or "GET" not in (rule.methods or ()):
            continue
        if getattr(view, "admin_live", False) or rule.endpoint == "admin_login.login":
            continue
        missing = rule.arguments - set(known)
        if missing & UNSEEN:
            continue
        if missing:
            raise SystemExit(f"{rule.rule}: no example of {', '.join(sorted(missing))}")
        with app.test_request_context():
            path = app.url_for(rule.endpoint, **{name: known[name] for name in rule.arguments})
        query = QUERIES.get(rule.endpoint, "").format(**known)
        name = re.sub(r"[^a-z0-9]+", "-", re.sub(r"<(?:\w+:)?(\w+)>", r"\1", rule.rule[7:]))
        if name.strip("-") and only in name:
            found[name.strip("-")] = f"{path}?{query}" if query else path
    app.extensions["recsys"].close()
    open_to_all = {"shop": "/shop", "start": "/", "help": "/help/", "api": "/docs"}
    found |= {n: path for n, path in open_to_all.items() if only in n and demo.serves(path)}
    return dict(sorted(found.items()))


def take(
    browser: Browser, demo: Demo, pages: dict[str, str], folder: Path, width: int, theme: str
) -> list[str]:
    """Pictures of all pages at one width and theme; what went wrong."""
    wrong: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]},
        color_scheme=theme,
        reduced_motion="reduce",
    )
    page_checks.watch(context)
    page = context.new_page()
    where = ["login"]
    page.on("console", lambda m: m.type == "error" and wrong.append(f"{where[0]}: {m.text}"))
    page.on("pageerror", lambda error: wrong.append(f"{where[0]}: {error}"))

    def watch(url: str) -> None:
        if url.startswith("http") and not url.startswith(demo.base):
            wrong.append(f"{where[0]}: asked another host: {url}")

    page.on("request", lambda request: watch(request.url))
    page.goto(f"{demo.base}/admin/login")
    shoot(page, folder / f"login-{width}-{theme}.png")
    log_in(page, demo)
    for name, path in pages.items():
        where[0] = name
        html = {"Accept": "text/html"}
        first = context.request.get(demo.base + path, headers=html, max_redirects=0)
        if first.status in (302, 303) or "text/html" not in first.headers.get("content-type", ""):
            continue  # a way to another page, or something to download
        if first.status != 200:
            wrong.append(f"{name}: {path} is answered {first.status}")
            continue
        if "<html" not in first.text():
            continue  # a part of a page
        page.goto(demo.base + path)
        if name == "shop":
            browse(page)
        shoot(page, folder / f"{name}-{width}-{theme}.png")
        faults = page_checks.faults(page) + page_checks.axe_faults(page)
        wrong += [f"{name} at {width} px, {theme}: {fault}" for fault in faults]
    context.close()
    return wrong


def take_documents(browser: Browser, demo: Demo, pages: dict[str, str]) -> None:
    """The pictures that documents show, as the first screen shows a page."""
    context = browser.new_context(viewport=FRAME, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{demo.base}/admin/login")
    log_in(page, demo)
    for name, of_page in PICTURES.items():
        page.goto(demo.base + pages[of_page])
        if name == "shop":
            browse(page)
        page.wait_for_load_state("load")
        page.wait_for_timeout(500)
        page.screenshot(path=DOCUMENTS / f"{name}.jpg", type="jpeg", quality=85)
    context.close()


def log_in(page: Page, demo: Demo) -> None:
    page.get_by_label("Name").fill(demo.name)
    page.get_by_label("Password").fill(demo.password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{demo.base}/admin/**")


def browse(page: Page) -> None:
    """Look at three products, so that the row above follows."""
    for at in range(3):
        page.locator("#tiles .card").nth(at).click()
        page.wait_for_timeout(500)
    page.get_by_label("Why these?").check()


def shoot(page: Page, path: Path) -> None:
    page.wait_for_load_state("load")
    page.wait_for_timeout(300)  # charts are drawn, what is fetched has come
    page.screenshot(path=path, full_page=True)


def until(condition: Any, otherwise: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(otherwise)
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
