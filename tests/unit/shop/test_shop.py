"""A shop as DataFrames."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text

import recsys
from recsys.config import Settings
from recsys.errors import (
    ConfigError,
    InputError,
    MissingExtraError,
    NotEnoughDataError,
    NotFoundError,
    RecsysError,
    StorageUnavailableError,
)
from recsys.ingest.event_body import check_event
from recsys.ingest.item_body import check_item
from recsys.ingest.user_body import check_user
from recsys.storage.entities import (
    attribute_rows,
    erasure_rows,
    event_rows,
    item_rows,
    user_rows,
)

NOW_US = 1_760_000_000_000_000
DAY = pd.Timedelta(days=1)


def settings_of(database, folder, tiny=None):
    base = {} if tiny is None else tiny.settings.model_dump(exclude={"database", "registry"})
    url = database.url.render_as_string(hide_password=False)
    return Settings.model_validate(
        {**base, "database": {"url": url}, "registry": {"path": folder / "models"}}
    )


@pytest.fixture
def small(database, tmp_path):
    """Three users with a handful of events."""
    at = datetime(2025, 3, 1, tzinfo=UTC)
    rows = [
        {"user_id": "ann", "item_id": "tea", "value": 2.5, "properties": {"place": ["top", 1]}},
        {"user_id": "bob", "item_id": "cup", "event_type": "purchase"},
        {"session_id": "tab", "item_id": "pot"},
        {"user_id": "ann", "session_id": "app", "item_id": "cup", "event_id": "e1"},
        {"user_id": "eve", "item_id": "tea"},
    ]
    with database.begin() as connection:
        for number, row in enumerate(rows):
            row = {**row, "timestamp": (at + timedelta(days=number)).isoformat()}
            event_rows.insert_events(connection, [check_event(row, NOW_US)], NOW_US)
        user_rows.merge(connection, "ann", "s:tab", NOW_US)
        items = [
            {"item_id": "tea", "title": "Tea", "price": 3, "categories": ["drinks"],
             "properties": {"hue": "green", "sizes": [1, 2]}},
            {"item_id": "cup", "available": False},
        ]  # fmt: skip
        item_rows.put_items(connection, [check_item(one) for one in items], NOW_US)
        users = [check_user("ann", {"plan": "pro", "age": 31}), check_user("Bob", {"plan": None})]
        attribute_rows.put_attributes(connection, users, "replace", NOW_US)
    with recsys.open(settings_of(database, tmp_path)) as shop:
        yield shop


def test_events_by_time_user_and_number(small):
    events = small.events()
    assert list(events["item_id"]) == ["tea", "cup", "pot", "cup", "tea"]
    assert str(events["timestamp"].dtype) == "datetime64[us, UTC]"
    assert events["timestamp"].is_monotonic_increasing
    assert events.loc[0, "properties"] == {"place": ["top", 1]}
    assert events.loc[1, "properties"] is None
    assert events.loc[0, "value"] == 2.5 and np.isnan(events.loc[1, "value"])
    assert pd.isna(events.loc[2, "user_id"]) and events.loc[2, "session_id"] == "tab"
    assert list(events.columns) == [
        "user_id", "session_id", "item_id", "event_type", "timestamp", "event_id", "value",
        "recommendation_id", "properties",
    ]  # fmt: skip
    within = small.events(since="2025-03-02", until=pd.Timestamp("2025-03-04T00:00Z"))
    assert list(within["item_id"]) == ["cup", "pot"]
    local = small.events(since="2025-03-05T02:00+02:00")
    assert list(local["user_id"]) == ["eve"]
    assert list(small.events(users="ann")["item_id"]) == ["tea", "pot", "cup"]
    both = small.events(users=["bob", "nobody", "bob"], since=datetime(2025, 3, 1))
    assert list(both["event_type"]) == ["purchase"]
    assert list(small.events(limit=2)["item_id"]) == ["cup", "tea"]
    assert small.events(users=[]).empty and len(small.events(users=[]).columns) == 9
    assert small.events(until="1990-01-01").dtypes.equals(events.dtypes)


def test_items_and_users(small):
    items = small.items()
    assert list(items.index) == ["cup", "tea"] and items.index.name == "item_id"
    assert list(items["available"]) == [False, True]
    assert items.loc["tea", "categories"] == ["drinks"] and items.loc["tea", "price"] == 3.0
    assert items.loc["tea", "properties.sizes"] == [1, 2]
    assert items.loc["tea", "updated_at"] == pd.Timestamp(NOW_US, unit="us", tz="UTC")
    users = small.users()
    assert list(users.index) == ["Bob", "ann"] and list(users.columns) == ["age", "plan"]
    assert users.loc["ann", "age"] == 31 and pd.isna(users.loc["Bob", "plan"])
    assert list(small.users(names=["plan"]).columns) == ["plan"]
    with pytest.raises(InputError, match=r"names = 'plna': .*nearest: plan"):
        small.users(names=["plna"])


def test_sequences_count_what_was_merged(small):
    sequences = small.sequences().set_index("user_id")
    ann = sequences.loc["ann"]
    assert list(ann["item_ids"]) == ["tea", "pot", "cup"] and ann["length"] == 3
    assert list(ann["session_starts"]) == [True, True, True]
    assert ann["first_at"] == pd.Timestamp("2025-03-01", tz="UTC")
    assert ann["last_at"] == pd.Timestamp("2025-03-04", tz="UTC")
    assert ann["timestamps"].dtype == "datetime64[us]"
    assert sequences["session_id"].isna().all() and set(sequences.index) == {"ann", "bob", "eve"}


def test_it_never_writes(small, database):
    with pytest.raises(RecsysError), small._database.begin() as connection:
        connection.execute(text("DELETE FROM events"))
    assert len(small.events()) == 5
    with database.begin() as connection:
        erasure_rows.erase(connection, "eve", NOW_US)
    assert "eve" not in set(small.events()["user_id"])  # each call reads anew


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda shop: shop.events(since="yesterday-ish"), "since = 'yesterday-ish'"),
        (lambda shop: shop.events(until=pd.NaT), "until"),
        (lambda shop: shop.events(limit=0), "limit = 0"),
        (lambda shop: shop.events(users=[7]), "users = 7"),
        (lambda shop: shop.recommend("ann", k=0), "k = 0"),
        (lambda shop: shop.recommend("ann", k=1_001), "k = 1001"),
        (lambda shop: shop.recommend(str(n) for n in range(100_001)), "users = 100001"),
        (lambda shop: shop.similar("tea", k=True), "k = True"),
    ],
)
def test_what_is_not_acceptable_is_named(small, ask, said):
    with pytest.raises(InputError, match=said):
        ask(small)


def test_without_a_model_or_a_database(small, tmp_path):
    with pytest.raises(NotEnoughDataError, match="no version has been promoted"):
        small.recommend("ann")
    with pytest.raises(NotEnoughDataError, match="no version has been promoted"):
        small.evaluate()
    missing = Settings(database={"url": f"sqlite:///{tmp_path}/none.db"})
    with recsys.open(missing) as shop, pytest.raises(StorageUnavailableError):
        shop.events()
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(ConfigError, match="expected an existing TOML file"):
        recsys.open(tmp_path / "none.toml")


@pytest.fixture
def trained(database, tmp_path, tiny_shop, publish):
    """The tiny shop with its model, as a configuration file says."""
    settings = settings_of(database, tmp_path, tiny_shop)
    publish(tiny_shop, database, settings.registry.path)
    last = tiny_shop.shop.end_us
    later = [
        {"user_id": f"late{n % 40}", "item_id": f"P{(n * 7) % 60:04d}",
         "timestamp": last // 1_000 + 1 + n * 1_000}
        for n in range(400)
    ]  # fmt: skip
    with database.begin() as connection:
        rows = [check_event(row, NOW_US) for row in later]
        event_rows.insert_events(connection, rows, NOW_US)
        item_rows.put_items(connection, tiny_shop.shop.items, 1)
    with recsys.open(settings) as shop:
        yield shop


def test_recommendations_are_those_of_the_service(trained, tiny_shop, database):
    found = trained.recommend(["late1", "late2", "nobody"], k=5)
    assert list(found.columns) == ["user_id", "rank", "item_id", "score", "source"]
    assert found.groupby("user_id").size().to_dict() == {"late1": 5, "late2": 5, "nobody": 5}
    assert list(found[found["user_id"] == "late1"]["rank"]) == [1, 2, 3, 4, 5]
    ann = found[found["user_id"] == "late1"]
    assert ann["score"].is_monotonic_decreasing and ann["item_id"].is_unique
    assert set(found[found["user_id"] == "nobody"]["source"]) <= {"popular", "latest", "trending"}
    with database.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM impressions")).scalar() == 0
    similar = trained.similar("P0003", k=4)
    assert list(similar["rank"]) == [1, 2, 3, 4] and "P0003" not in set(similar["item_id"])
    assert set(similar["source"]) == {"lstm"} and similar["title"].notna().all()
    with pytest.raises(NotFoundError):
        trained.similar("nothing")


def test_the_report_ranks_every_system_on_newer_events(trained, tiny_shop):
    report = trained.evaluate()
    assert report.index.name == "ranking" and {"served", "lstm", "popular"} <= set(report.index)
    assert report["mrr@20"].is_monotonic_decreasing
    for metric in ("recall@20", "mrr@20", "ndcg@10"):
        assert (report[f"{metric}_low"] <= report[metric]).all()
        assert (report[metric] <= report[f"{metric}_high"]).all()
    assert report.attrs["version"] == tiny_shop.bundle.version
    assert report.attrs["positions"] > 100 and "newer" in report.attrs["note"]
    assert not (trained.settings.registry.path / ".sequences").exists()
    with pytest.raises(NotFoundError):
        trained.evaluate("20200101-000000-abcdef")
    assert isinstance(report.attrs["window_from"], pd.Timestamp)
    pd.testing.assert_frame_equal(trained.evaluate(tiny_shop.bundle.version), report)


def test_pictures(small, monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot

    axes = small.plot_events(small.events())
    assert {line.get_label() for line in axes.lines} == {"view", "purchase"}
    rows = {"mrr@20": [0.2, 0.1], "mrr@20_low": [0.1, 0.1], "mrr@20_high": [0.3, 0.2]}
    report = pd.DataFrame(rows, pd.Index(["served", "popular"]))
    axes = small.plot_evaluation(report, "mrr@20")
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.2]
    with pytest.raises(InputError, match="metric = 'recall'"):
        small.plot_evaluation(report, "recall")
    pyplot.close("all")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'recsys\[plot\]'"):
        small.plot_events(small.events())


def test_the_import_is_light():
    code = (
        "import recsys, sys; "
        "heavy = {'pandas', 'torch', 'pyarrow', 'sqlalchemy', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy; import recsys.shop; "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
