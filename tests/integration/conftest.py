"""The REST service in this process, over a real database."""

from contextlib import closing
from pathlib import Path

import pytest

from recsys.config import Settings
from recsys.storage import item_rows, key_rows
from recsys.storage.database import Database
from recsys.web.app import create_app


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
        self.app.extensions["recsys"].impressions.close()

    def call(self, method, path, *, scope="admin", status=200, **more):
        headers = {"X-API-Key": self.keys[scope]} if scope else {}
        headers.update(more.pop("headers", {}))
        response = self.client.open("/api/v1" + path, method=method, headers=headers, **more)
        assert response.status_code == status, response.get_data(as_text=True)
        if status >= 400 and response.mimetype == "application/problem+json":
            problem = response.get_json()
            assert set(problem) == {"type", "title", "status", "detail", "errors", "request_id"}
            assert problem["request_id"] == response.headers["X-Request-ID"]
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
