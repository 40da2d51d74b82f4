"""A served shop that can be taken away, and pages of another origin."""

import os
import shutil
import socket
import subprocess
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select
from werkzeug.serving import make_server

from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows, key_rows
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events
from tests.conftest import unavailable

ROOT = Path(__file__).parents[3]
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"


class ServedShop:
    """A service on a port of its own; `stop` and `start` it, or have it lose its answers (`cut`)."""

    def __init__(self, service, database):
        self.service, self.database = service, database
        self.keys = service.keys
        self.cut = 0  # so many answers are lost on their way, what they answer having been done
        self.requests = []  # (method, path) in order of arrival
        self.port = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.server = make_server("127.0.0.1", self.port or 0, self._answer, threaded=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.cut and environ["REQUEST_METHOD"] == "POST":
            self.cut -= 1
            list(self.service.app(environ, lambda *_: None))
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        return self.service.app(environ, start_response)

    def page_key(self, origin):
        with self.database.begin() as connection:
            return key_rows.create_key(connection, f"page {origin}", ["collect"], 1, [origin])

    def stored(self, owner):
        """The stored events of a session or user, in order of arrival."""
        column = (events.c.session_id == owner) | (events.c.user_id == owner)
        with self.database.connect() as connection:
            return connection.execute(select(events).where(column).order_by(events.c.id)).all()


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_shop, publish, Service, settings_for):
    folder = tmp_path_factory.mktemp("served")
    database = Database(f"sqlite:///{folder}/recsys.db")
    migrate.upgrade(database)
    publish(tiny_shop, database, folder / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    auth = {"collect_per_minute": 100_000, "collect_events_per_minute": 100_000}
    with (
        closing(database),
        closing(Service(database, settings_for(folder / "models", auth))) as made,
    ):
        made.post("/events", [{"user_id": f"u{n}", "item_id": f"P000{n}"} for n in range(1, 9)])
        shop = ServedShop(made, database)
        yield shop
        shop.stop()


class Site:
    """A static site: `pages` is path -> HTML."""

    def __init__(self):
        self.pages = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                page = site.pages.get(self.path.partition("?")[0])
                self.send_response(200 if page else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write((page or "").encode())

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site():
    with closing(Site()) as made:
        yield made


@pytest.fixture(scope="session")
def node():
    """node(*arguments, **more): runs Node with the packages of tests/node."""
    if shutil.which("node") is None or not (NODE_MODULES / "esbuild").is_dir():
        unavailable("no Node or no tests/node/node_modules: run `npm ci --prefix tests/node`")
    environment = {**os.environ, "NODE_PATH": str(NODE_MODULES)}

    def run(*arguments, command="node", **more):
        given = {"env": environment, "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run([command, *map(str, arguments)], **given, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def package(node, tmp_path_factory):
    """The JavaScript package as npm packs it, built anew."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("dist", "node_modules")
    shutil.copytree(ROOT / "clients" / "js", folder / "js", ignore=ignored)
    node("pack", "--loglevel=error", command="npm", cwd=folder / "js")
    (packed,) = (folder / "js").glob("recsys-client-*.tgz")
    shutil.unpack_archive(packed, folder, filter="data")
    return folder / "package"
