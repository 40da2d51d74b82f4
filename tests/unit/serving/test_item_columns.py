"""Columns of the catalogue follow what is stored, and stay within their bound."""

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.events.times import HOUR_US
from recsys.ingest.item_body import check_item
from recsys.models.bundle import Bundle
from recsys.serving.answers import Candidate
from recsys.serving.item_columns import ColumnStore
from recsys.serving.item_snapshot import Catalogue
from recsys.serving.steering.business_value import Scoring
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.expression import parse, parse_score
from recsys.storage.entities import item_rows
from recsys.storage.entities.stamps import read_stamps

NOW_US = 1_736_899_200_000_000


def put(database, now_us, *rows):
    with database.begin() as connection:
        item_rows.put_items(connection, [check_item(row) for row in rows], now_us)


def meeting(database, catalogue, text, **more):
    with database.read() as connection:  # as a request has it
        snapshot = catalogue.at(connection, read_stamps(connection).items)
        found = snapshot.meeting_expression(
            connection, parse(text, "filter"), Bindings(NOW_US, **more)
        )
        again = snapshot.meeting_expression(
            connection, parse(text, "filter"), Bindings(NOW_US, **more)
        )
    assert found is again  # kept
    assert all(item_id in found.item_ids for item_id in found.item_ids)
    return sorted(found.item_ids)


def test_columns_follow_the_catalogue(database, monkeypatch):
    monkeypatch.setattr("recsys.storage.entities.item_values.PART", 2)  # read in parts
    catalogue = Catalogue()
    put(
        database,
        NOW_US - 5 * HOUR_US,
        {"item_id": "a", "price": 10, "categories": ["x"], "properties": {"brand": "A"}},
        {"item_id": "b", "price": 20, "properties": {"brand": 7, "odd name": [1, 2]}},
    )
    assert meeting(database, catalogue, "item.price < 15") == ["a"]
    assert meeting(database, catalogue, 'item.brand == "A" || item.brand == 7') == ["a", "b"]
    assert meeting(database, catalogue, '2 in item["odd name"]') == ["b"]
    assert meeting(database, catalogue, '"x" in item.categories && item.available') == ["a"]
    recent = 'item.created_at > now() - duration("2h")'
    assert meeting(database, catalogue, recent) == []
    with pytest.raises(InputError, match=r"nearest: brand"), database.connect() as connection:
        catalogue.latest.meeting_expression(
            connection, parse("item.brnd == 1", "f"), Bindings(NOW_US)
        )
    # One is changed, one is new with a new property; what an import began an hour ago comes late.
    put(database, NOW_US, {"item_id": "b", "price": 5, "properties": {"brand": None}})
    put(database, NOW_US - HOUR_US, {"item_id": "c", "price": 30, "properties": {"hue": "red"}})
    assert meeting(database, catalogue, "item.price < 15") == ["a", "b"]
    assert meeting(database, catalogue, 'item.brand == "A" || item.brand == 7') == ["a"]
    assert meeting(database, catalogue, 'item.hue == "red"') == ["c"]
    assert meeting(database, catalogue, "!has(item.hue)") == ["a", "b"]
    assert meeting(database, catalogue, recent) == ["c"]
    whole = ColumnStore()
    with database.connect() as connection:
        fresh = whole.at(connection, 99, ["price", "brand", "hue"], NOW_US)
        held = catalogue.latest.store.at(connection, 0, ["price", "brand", "hue"], NOW_US)
    assert sorted(held.ids.ids) == sorted(fresh.ids.ids) and held.count == fresh.count == 3
    assert all(kind in held.kinds[name] for name, kind in fresh.kinds.items())  # they only grow


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_names_the_last_item_or_the_user_is_kept_by_its_value(database):
    catalogue = Catalogue()
    put(
        database, 1, *({"item_id": f"i{n}", "properties": {"brand": "AB"[n % 2]}} for n in range(4))
    )
    same = "item.brand == last.brand"
    assert meeting(database, catalogue, same, last={"brand": "A"}) == ["i0", "i2"]
    assert meeting(database, catalogue, same, last={"brand": "B"}) == ["i1", "i3"]
    assert meeting(database, catalogue, same) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_score_of_some_items(database):
    put(database, 1, *({"item_id": f"i{n}", "price": n, "properties": {"m": n}} for n in range(4)))
    put(database, 1, {"item_id": "i9", "price": 9})
    with database.connect() as connection:
        snapshot = Catalogue().at(connection, 1)
        score = parse_score("chance * item.m * item.price", "score_by")
        bindings = Bindings(NOW_US)
        scoring = Scoring(score, bindings, snapshot.columns(connection, score, bindings))
    asked = [Candidate(name, 0.0, "lstm") for name in ("i3", "i2", "i9", "unknown")]
    found = scoring.values(asked, np.array([0.5, 0.25, 1.0, 1.0]))
    assert found[:2].tolist() == [4.5, 1.0] and np.isnan(found[2:]).all()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_columns_named_last_are_kept_within_the_bound(database):
    put(database, 1, *({"item_id": f"i{n}", "price": n, "title": f"t{n}"} for n in range(100)))
    store = ColumnStore(max_bytes=1_000)  # a column of numbers has 800
    with database.connect() as connection:
        for name in ("price", "title", "available", "price"):
            held = store.at(connection, 1, [name], NOW_US)
            assert name in held.by_name
        assert set(held.by_name) == {"price", "available"}
    assert store.bytes < 100 * 200 + 1_000


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_rows_of_a_version(database, tiny_shop):
    bundle: Bundle = tiny_shop.bundle
    known = bundle.vocabulary.item_ids[:3]
    put(database, 1, *({"item_id": one, "price": 1} for one in [*known, "unknown"]))
    catalogue = Catalogue()
    with database.connect() as connection:
        snapshot = catalogue.at(connection, 1)
        found = snapshot.meeting_expression(connection, parse("item.price == 1", "f"), Bindings(0))
        rows = snapshot.rows(bundle, found)
    assert sorted(map(bundle.vocabulary.item_id, rows)) == sorted(known)
