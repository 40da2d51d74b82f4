"""An operation and its query form are one declaration and one view."""

from dataclasses import replace

from flask import Blueprint, Flask
from pydantic import BaseModel

import recsys.web.app  # noqa: F401  # declares every operation
from recsys.web.fields import Id, Strict
from recsys.web.operations import CATALOGUE, QueryForm, operation


class LengthQuery(Strict):
    k: int = 3


class LengthByIdQuery(LengthQuery):
    item_id: Id


class EchoAnswer(BaseModel):
    item_id: str
    k: int


def test_a_view_is_called_alike_by_path_and_by_query(monkeypatch):
    monkeypatch.setattr("recsys.web.operations.CATALOGUE", declared := [])
    blueprint = Blueprint("things", __name__, url_prefix="/api")

    @operation(
        blueprint,
        "GET",
        "/things/<id:item_id>/echo",
        scope=None,
        query=LengthQuery,
        answer=EchoAnswer,
        by_query=QueryForm("/things/echo", LengthByIdQuery, ", or so"),
    )
    def echo(item_id, query):
        """Echo what was asked."""
        return {"item_id": item_id, "k": query.k}

    from recsys.web import problem_details
    from recsys.web.paths import IdConverter

    app = Flask(__name__)
    app.url_map.converters["id"] = IdConverter
    app.register_blueprint(blueprint)
    problem_details.register(app)
    client = app.test_client()
    by_path = client.get("/api/things/tea/echo?k=5").get_json()
    assert by_path == client.get("/api/things/echo?item_id=tea&k=5").get_json()
    assert by_path == {"item_id": "tea", "k": 5}
    assert client.get("/api/things/echo?item_id=a%2Fb").get_json() == {"item_id": "a/b", "k": 3}
    assert client.get("/api/things/echo?k=5").status_code == 422
    assert client.get("/api/things/tea/echo?item_id=tea").status_code == 422
    path, query = declared
    assert query.summary == "The same, with the item's ID as a query parameter, or so."
    assert query == replace(
        path,
        path="/api/things/echo",
        name="echo_by_query",
        query=LengthByIdQuery,
        summary=query.summary,
    )


def test_each_resource_with_an_id_has_its_query_form():
    forms = {one.name.removesuffix("_by_query") for one in CATALOGUE if "_by_query" in one.name}
    assert forms == {
        *("user_recommendations", "similar", "following", "patch_item", "delete_item"),
        *("get_user", "get_user_events", "merge_user", "delete_user"),
        *("get_attributes", "put_attributes", "delete_attributes"),
    }
    paths = {one.name: one for one in CATALOGUE}
    for name in forms:
        path, query = paths[name], paths[f"{name}_by_query"]
        assert (path.method, path.scope, path.answer, path.statuses, path.collect) == (
            *(query.method, query.scope, query.answer, query.statuses, query.collect),
        )
        assert "<id:" in path.path and "<" not in query.path
