"""Models, runs, health and the description of all routes over REST."""

import json

from recsys.ingest.item_body import check_item


def test_models_are_listed_and_shown(service, tiny_shop):
    (model,) = service.get("/models")["models"]
    assert model["champion"] is True
    assert model["version"] == tiny_shop.bundle.version
    assert service.get(f"/models/{model['version']}") == model
    service.call("GET", "/models/nothing", status=404)


def test_a_run_is_asked_for_shown_and_cancelled(bare):
    run = bare.call("POST", "/jobs/retrain/run", status=202).get_json()
    assert run["state"] == "requested"
    bare.call("POST", "/jobs/retrain/run", status=409)
    bare.call("POST", "/jobs/nothing/run", status=404)
    assert bare.get(f"/jobs/runs/{run['run_id']}") == run
    assert bare.get("/jobs")["runs"] == [run]
    cancelled = bare.call("POST", f"/jobs/runs/{run['run_id']}/cancel").get_json()
    assert cancelled["state"] == "cancelled"
    bare.call("POST", f"/jobs/runs/{run['run_id']}/cancel", status=409)
    bare.call("GET", "/jobs/runs/999999", status=404)
    bare.call("GET", f"/jobs/runs/{10**30}", status=404)


def test_health(service, bare):
    assert service.client.get("/health/live").status_code == 200
    ready = service.client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.get_json()["checks"] == {"database": "ok", "model": "ok"}


def test_the_document_names_every_route_and_the_page_needs_no_other_host(bare):
    document = json.loads(bare.client.get("/openapi.json").data)
    assert document["openapi"] == "3.1.0"
    told = {
        (path, method)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
        if "key of scope collect will do" in described.get("description", "")
    }
    posted = {(f"/api/v1/{name}", "post") for name in ("events", "recommendations", "impressions")}
    posted |= {("/api/v1/items/bought-together", "post"), ("/api/v1/recommendations/page", "post")}
    lists = {"similar", "next", "popular", "trending", "{item_id}/similar", "{item_id}/next"}
    assert told == posted | {(f"/api/v1/items/{name}", "get") for name in lists}
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    routed = set()
    for rule in bare.app.url_map.iter_rules():
        if rule.rule.startswith(("/api/v1/", "/health")):
            path = rule.rule
            for name in rule.arguments:
                path = path.replace(f"<id:{name}>", f"{{{name}}}")
                path = path.replace(f"<int:{name}>", f"{{{name}}}")
            routed |= {(method, path) for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert described == routed
    page = bare.client.get("/docs")
    assert page.status_code == 200
    text = page.get_data(as_text=True)
    assert "http" not in text.replace("http-equiv", "")
    for asset in ("swagger-ui/swagger-ui-bundle.js", "swagger-ui/swagger-ui.css", "docs.js"):
        with bare.client.get(f"/static/{asset}") as response:
            assert response.status_code == 200


def test_unknown_addresses_and_methods_are_problems(bare):
    for path, method, status in (("/nothing", "GET", 404), ("/events", "GET", 405)):
        bare.call(method, path, status=status)


def test_check_item_and_the_schema_agree_on_fields():
    from recsys.ingest.item_body import ITEM_FIELDS
    from recsys.web.api.item_routes import ItemIn

    assert set(ItemIn.model_fields) == set(ITEM_FIELDS)
    assert check_item({"item_id": "x"}).available
