"""What is left out where nobody says: as the version has learned of its log."""

from contextlib import closing
from dataclasses import replace

import pytest

from recsys.events.seen_returns import Returns, SeenDefault
from recsys.models.version_facts import VersionFacts
from recsys.storage.entities import audit_rows, item_rows, version_rows

LEARNED = SeenDefault("all", {"view": Returns(5_000, 0.12, 0.02, 0.03)}, 0.04)


@pytest.fixture
def learned(tiny_shop):
    facts = replace(tiny_shop.bundle.facts, seen=LEARNED)
    return replace(tiny_shop, bundle=replace(tiny_shop.bundle, facts=facts))


@pytest.fixture
def served(database, tmp_path, learned, publish, Service, settings_for):
    """made(**keys of [serving]): the service over the version that has learned."""
    publish(learned, database, tmp_path / "models")
    with database.begin() as connection:
        item_rows.put_items(connection, learned.shop.items, 1)
    opened = []

    def made(**serving):
        settings = settings_for(tmp_path / "models", **serving)
        opened.append(closing(Service(database, settings)))
        return opened[-1].__enter__()

    yield made
    for one in opened:
        one.__exit__(None, None, None)


def items(service, query=""):
    answer = service.get(f"/users/u/recommendations?k=60{query}")
    return [item["item_id"] for item in answer["items"]]


def test_it_is_the_default_that_request_scenario_and_configuration_may_change(served, learned):
    service, seen = served(), learned.bundle.vocabulary.item_ids[:2]
    service.post("/events", [{"user_id": "u", "item_id": name} for name in seen])
    assert not set(seen) & set(items(service))
    assert items(service) == items(service, "&exclude_seen=all")
    assert items(service, "&exclude_seen=true") == items(service, "&exclude_seen=auto")
    assert set(seen) & set(items(service, "&exclude_seen=none"))
    for name, given in (("own", "none"), ("learned", "auto"), ("silent", None)):
        spec = {} if given is None else {"exclude_seen": given}
        assert service.call("PUT", f"/scenarios/{name}", json={"k": 60, **spec}).status_code == 200
    assert set(seen) & set(items(service, "&scenario=own"))
    assert not set(seen) & set(items(service, "&scenario=learned"))
    assert not set(seen) & set(items(service, "&scenario=silent"))
    assert items(service, "&scenario=learned&exclude_seen=view") == items(service)
    explicit = served(exclude_seen="purchase")
    assert set(seen) & set(items(explicit))
    assert not set(seen) & set(items(explicit, "&exclude_seen=auto"))


def test_an_explained_answer_says_what_is_left_out_and_why(served):
    service = served()
    service.post("/events", [{"user_id": "u", "item_id": "x", "event_type": "purchase"}])
    url = "/users/u/recommendations?k=5"
    assert "seen" not in service.get(url)
    told = service.get(f"{url}&explain=true")["seen"]
    assert told == {"exclude_seen": "all", "why": LEARNED.said()}
    told = service.get(f"{url}&explain=true&exclude_seen=purchase")["seen"]
    assert told == {"exclude_seen": "purchase", "why": None}


def test_a_version_of_an_earlier_release_leaves_out_what_was_bought(service, tiny_shop):
    ids = tiny_shop.bundle.vocabulary.item_ids
    service.post("/events", [{"user_id": "u", "item_id": ids[0]}])
    service.post("/events", [{"user_id": "u", "item_id": ids[1], "event_type": "purchase"}])
    found = items(service)
    assert ids[0] in found and ids[1] not in found
    told = service.get("/users/u/recommendations?k=5&explain=true")["seen"]
    assert told["why"] is None and "purchase" in told["exclude_seen"].split(",")


def test_the_fact_is_kept_and_stands_in_the_audit_line(database, version_row):
    facts = VersionFacts(seen=LEARNED).to_json()
    assert VersionFacts.from_json(facts).seen == LEARNED
    assert VersionFacts.from_json({}).seen is None
    from recsys.commands import deployments
    from recsys.storage.entities.audit_rows import CLI

    with database.begin() as connection:
        version_rows.add_version(connection, version_row("v1", facts=facts))
    deployments.promote(database, CLI, "v1", "in a test", 1)
    with database.connect() as connection:
        entry = audit_rows.list_audit(connection, 1)[0]
    assert entry.details["exclude_seen"] == "all"
