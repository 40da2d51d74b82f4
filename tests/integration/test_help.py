"""/help: the built documents, and what stands there before they are built."""

from contextlib import closing

import pytest

from recsys.config import Settings
from recsys.storage.engine.database import Database
from recsys.web import help_pages
from recsys.web.app import create_app

HTML = {"Accept": "text/html"}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A client of a service without tables, and the folder that its site is looked for in."""
    folder = tmp_path / "help"
    monkeypatch.setattr(help_pages, "FOLDER", folder)  # absolute: no longer beside the templates
    with closing(Database(f"sqlite:///{tmp_path}/recsys.db")) as database:
        yield create_app(Settings(), database).test_client(), folder


def test_a_checkout_without_the_site_says_how_to_build_it(site):
    client, _ = site
    page = client.get("/help/", headers=HTML)
    assert page.status_code == 404 and "make docs" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "make docs" in client.get("/help/").json["detail"]


def test_the_built_site_is_served_and_nothing_beside_it(site):
    client, folder = site
    (folder / "_static").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>Welcome</h1>")
    (folder / "_static" / "site.css").write_text("a { color: red }")
    (folder.parent / "secret.html").write_text("not for anyone")
    assert client.get("/help").headers["Location"].endswith("/help/")
    with client.get("/help/") as page:
        assert page.text == "<h1>Welcome</h1>" and page.mimetype == "text/html"
        policy = page.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy and "http" not in policy
        with client.get("/help/", headers={"If-None-Match": page.headers["ETag"]}) as again:
            assert again.status_code == 304
    with client.get("/help/_static/site.css?v=0a1b") as style:
        assert style.status_code == 200 and style.mimetype == "text/css"
    for path in ("/help/nothing.html", "/help/../secret.html", "/help/%2e%2e/secret.html"):
        found = client.get(path, headers=HTML)
        assert found.status_code == 404 and "not for anyone" not in found.text
    assert "Go to the help" in client.get("/help/nothing.html", headers=HTML).text


def test_its_search_takes_its_parameters_and_no_other(site):
    client, folder = site
    folder.mkdir()
    (folder / "search.html").write_text("found")
    with client.get("/help/search.html?q=gate&check_keywords=yes&area=default") as page:
        assert page.text == "found"
    assert client.get("/help/search.html?callback=x").status_code == 422
