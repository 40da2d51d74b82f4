"""The answers to all users are what each of them would be answered."""

import time
from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.config import Settings
from recsys.errors import ModelFileError, NotEnoughDataError, StorageUnavailableError
from recsys.events.times import from_us
from recsys.ingest.event_body import check_event
from recsys.ingest.event_files import ColumnMap, ReadOptions
from recsys.ingest.item_body import check_item
from recsys.ops import upkeep
from recsys.serving import answering
from recsys.serving.all_users import answer_rows
from recsys.serving.answers import Answer, Request
from recsys.serving.recommender import Recommender
from recsys.storage.entities import erasure_rows, event_rows, item_rows, user_rows

COLUMNS = (
    "user=user_id,item=item_id,timestamp=timestamp_us,event_type=event_type,session=session_id"
)
K = 7


@pytest.fixture
def settings(tmp_path):
    return Settings(registry={"path": tmp_path / "models"}, serving={"control_share": 0.3})


@pytest.fixture
def now(tiny_shop):
    return from_us(tiny_shop.shop.end_us) + timedelta(minutes=1)


@pytest.fixture
def shop(database, settings, tmp_path, tiny_shop, publish, now):
    """A shop with a control, purchases, new and unknown items, merged, erased and quiet users."""
    log = tmp_path / "log.parquet"
    pq.write_table(tiny_shop.events, log)
    pipeline.import_events(
        database, log, ReadOptions(columns=ColumnMap.parse(COLUMNS), unit="us"), now
    )
    publish(tiny_shop, database, settings.registry.path)
    publish(tiny_shop, database, settings.registry.path, "20990101-000000-aaaaaa")
    end_us = tiny_shop.shop.end_us
    posted = [
        {"user_id": "buyer", "item_id": "P0001", "event_type": "purchase"},
        {"user_id": "buyer", "item_id": "P0002"},
        {"user_id": "cartful", "item_id": "P0003", "event_type": "cart"},  # no input of the model
        {"user_id": "stranger", "item_id": "never-heard-of"},
        {"user_id": "follower", "item_id": "P0001"},  # after which a new item came
        {"user_id": "early bird", "item_id": "fresh-item"},
        {"user_id": "erased", "item_id": "P0001"},
        {"session_id": "anonymous", "item_id": "P0004"},
        {"session_id": "on its own", "item_id": "P0004"},
    ]
    for number in range(6):
        visitor = {"user_id": f"visitor{number}"}
        posted += [{**visitor, "item_id": name} for name in ("P0001", "fresh-item", "P0009")]
    events = [check_event(raw, end_us + number) for number, raw in enumerate(posted)]
    with database.begin() as connection:
        event_rows.insert_events(connection, events, end_us)
        item_rows.put_items(connection, tiny_shop.shop.items, end_us)
        hidden = check_item({"item_id": "P0005", "available": False})
        item_rows.put_items(connection, [hidden], end_us)
        user_rows.merge(connection, "buyer", "s:anonymous", end_us)
    with database.begin() as connection:
        until = erasure_rows.settled_quarantine(connection)
        scan = erasure_rows.scan_quarantine(connection, "erased", until)
        erasure_rows.erase(connection, "erased", end_us, scan)
    assert upkeep.refresh_followers(settings, database, lambda line: None) == 2
    return database


def test_every_user_gets_what_a_request_gets(shop, settings, tmp_path, now, tiny_shop):
    path = tmp_path / "all.parquet"
    rows = answering.recommend_all(settings, shop, K, path, now)
    found: dict[str, list[tuple[object, ...]]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row.pop("user_id"), []).append(tuple(row.values()))
    assert sum(map(len, found.values())) == rows
    shoppers = {user for user in tiny_shop.events["user_id"].to_pylist() if user is not None}
    visitors = {f"visitor{number}" for number in range(6)}
    others = {"buyer", "cartful", "stranger", "follower", "early bird"}
    assert set(found) == shoppers | visitors | others

    recommender = Recommender(settings, shop, time.monotonic)
    recommender.follow_once(round(now.timestamp() * 1e6))
    sources, arms = set(), set()
    for user_id, ranked in found.items():
        asked = Request(user_id=user_id, k=K, exclude_seen=settings.serving.exclude_seen)
        answer = answering.recommend(recommender, asked, round(now.timestamp() * 1e6))
        expected = [(one.item_id, one.rank, pytest.approx(one.score)) for one in answer.items]
        assert ranked == expected, user_id
        assert len(ranked) == K
        sources |= {one.source for one in answer.items}
        arms.add(answer.arm)
    assert {"lstm", "transitions", "popular"} <= sources  # new items and fallbacks among them
    assert arms == {"champion", "control"}
    shown = {item_id for ranked in found.values() for item_id, *_ in ranked}
    assert "fresh-item" in shown and "P0005" not in shown
    assert "P0001" not in {item_id for item_id, *_ in found["buyer"]}


def test_without_a_model_nothing_is_written(database, settings, tmp_path, now, tiny_shop, publish):
    path = tmp_path / "all.parquet"
    with pytest.raises(NotEnoughDataError):
        answering.recommend_all(settings, database, K, path, now)
    version = publish(tiny_shop, database, settings.registry.path)
    (settings.registry.path / version / "manifest.json").write_text("{}")
    with pytest.raises(ModelFileError, match=version):
        answering.recommend_all(settings, database, K, path, now)
    assert not path.exists()


def test_an_answer_without_stored_history_is_not_written():
    away = "the database cannot be reached"
    answer = Answer("id", "u", None, None, 0, 0, None, degraded=away)
    with pytest.raises(StorageUnavailableError, match=away):
        answer_rows([answer])
