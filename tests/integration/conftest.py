"""The REST service in this process, over a real database."""

import base64
import hashlib
import os
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from recsys.config import Settings
from recsys.models.blend import BLEND, LIVE, Blend
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows, key_rows
from recsys.storage.schema.tables import accounts
from recsys.web.app import create_app

PASSWORD = "correct horse battery"


class Service:
    """The application with a key of each scope."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.app = create_app(settings, database)
        self.client = self.app.test_client()
        with database.begin() as connection:
            self.keys = {
                scope: key_rows.create_key(connection, scope, [scope], 1)
                for scope in ("read", "write", "admin")
            }
            self.keys["collect"] = key_rows.create_key(
                connection, "page", ["collect"], 1, ["https://shop.example"]
            )

    def close(self):
        self.app.extensions["recsys"].close()

    def call(self, method, path, *, scope="admin", status=200, **more):
        headers = {"X-API-Key": self.keys[scope]} if scope else {}
        headers.update(more.pop("headers", {}))
        response = self.client.open("/api/v1" + path, method=method, headers=headers, **more)
        assert response.status_code == status, response.get_data(as_text=True)
        if status >= 400 and response.mimetype == "application/problem+json":
            problem = response.get_json()
            assert set(problem) == {"type", "title", "status", "detail", "errors", "request_id"}
            assert problem["request_id"] == response.headers["X-Request-ID"] != ""
            for leak in ("Traceback", "SELECT", "sqlite3", "psycopg", "/tmp", "recsys/"):
                assert leak not in response.get_data(as_text=True)
        return response

    def get(self, path, **more):
        return self.call("GET", path, **more).get_json()

    def post(self, path, body, **more):
        return self.call("POST", path, json=body, **more).get_json()


def settings_for(folder: Path, auth: dict | None = None, **serving: object) -> Settings:
    chosen = {"max_body_bytes": 1_000_000, "reload_seconds": 0.1, "control_share": 0, **serving}
    return Settings(registry={"path": folder}, serving=chosen, auth=auth or {})


@pytest.fixture(name="Service", scope="session")
def service_class():
    return Service


@pytest.fixture(name="settings_for", scope="session")
def settings_maker():
    return settings_for


@pytest.fixture(scope="session")
def live_shop(tiny_shop):
    """The tiny shop's version with a blend for the live log that listens to others and to itself."""
    blend = Blend({"lstm": 0.3, "session_knn": 0.2, "transitions": 0.5}, 0.5, 2.0)
    made = replace(
        tiny_shop.bundle,
        ranking=BLEND,
        blends={**tiny_shop.bundle.blends, BLEND: blend, LIVE: blend},
    )
    return replace(tiny_shop, bundle=made)


@pytest.fixture
def bare(database, tmp_path):
    """A service without a model."""
    with closing(Service(database, settings_for(tmp_path / "models"))) as made:
        yield made


@pytest.fixture
def service(database, tmp_path, tiny_shop, publish):
    publish(tiny_shop, database, tmp_path / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    with closing(Service(database, settings_for(tmp_path / "models"))) as made:
        yield made


def add_account(connection, name: str, role: str) -> None:
    """An account of the dashboard with PASSWORD, whose hash is quick to check: the costs stand in it."""
    key = hashlib.scrypt(PASSWORD.encode(), salt=b"salt", n=16, r=1, p=1, dklen=32)
    salt, key = (base64.b64encode(part).decode() for part in (b"salt", key))
    values = {"name": name, "role": role, "password_hash": f"scrypt$4$1$1${salt}${key}"}
    connection.execute(accounts.insert(), {**values, "created_at_us": 1})


@pytest.fixture(name="add_account", scope="session")
def account_maker():
    """add_account(connection, name, role); its password is the attribute `password`."""
    add_account.password = PASSWORD
    return add_account


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, headless."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        reason = "no browser: install Debian's chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (a skip is a failure where CI=true)")
        pytest.skip(reason)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    expect.set_options(timeout=20_000)  # ms: other tests run beside these
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield opened
        opened.close()
