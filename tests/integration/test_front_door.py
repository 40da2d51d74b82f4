"""The addresses that people try first, without a key."""

from contextlib import closing

import pytest

from recsys import __version__
from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate
from recsys.web.app import create_app

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    database = Database(f"sqlite:///{folder}/recsys.db")
    migrate.upgrade(database)
    settings = Settings(registry={"path": folder / "models"})
    with closing(database):
        yield create_app(settings, database).test_client()


def test_a_browser_is_shown_the_ways_in(client):
    page = client.get("/", headers=HTML)
    assert page.status_code == 200 and page.mimetype == "text/html"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert 'href="/help/"' in page.text  # test_help.py says what is there
    for address in ("/admin/", "/docs", "/health/ready"):
        assert f'href="{address}"' in page.text
        assert client.get(address).status_code in (200, 302, 303)
    assert "/shop" not in page.text  # there is none without its key


def test_a_program_is_told_the_same_as_json(client):
    found = client.get("/").json
    assert found == {
        "service": "recsys",
        "version": __version__,
        "rest": "/api/v1",
        "dashboard": "/admin/",
        "help": "/help/",
        "api": "/docs",
        "health": "/health/ready",
    }
    assert client.get("/", headers={"Accept": "application/json"}).json == found


def test_the_root_of_the_api_leads_to_its_page(client):
    assert client.get("/api/v1", headers=HTML).headers["Location"] == "/docs"
    found = client.get("/api/v1")
    assert found.json == {"version": __version__, "docs": "/docs", "openapi": "/openapi.json"}
    for answer in (found, client.get("/api/v1", headers=HTML), client.get("/")):
        assert "Accept" in answer.headers["Vary"]


def test_there_is_an_icon(client):
    with client.get("/favicon.ico") as icon:
        assert icon.status_code == 200 and icon.mimetype == "image/svg+xml"


def test_parameters_are_refused_there_too(client):
    assert client.get("/?x=1").status_code == 422
    assert client.post("/").status_code == 405
