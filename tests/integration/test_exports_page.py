"""Exports of the dashboard: files that are read again as they were, and all that is stored of a user."""

import io
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.config import Settings
from recsys.events.fields import Event
from recsys.events.times import from_us, to_us
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.ingest.item_files import ItemOptions, read_items
from recsys.ingest.user_body import check_user
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    attribute_rows,
    audit_rows,
    event_batches,
    feedback_rows,
    item_rows,
    tombstone_rows,
    user_rows,
)
from recsys.storage.schema import migrate
from recsys.web.app import create_app
from tests.integration.test_admin_access import field, log_in

EXPORTS = "/admin/data-quality/exports"
NOW = datetime.now(UTC)


@pytest.fixture
def exporter(service, add_account, tiny_shop, tmp_path):
    """post(name, **form) -> the file's bytes, asked for by an operator."""
    pq.write_table(tiny_shop.events, tmp_path / "events.parquet")
    pipeline.import_events(service.database, tmp_path / "events.parquet", ReadOptions(), NOW)
    with service.database.begin() as connection:
        add_account(connection, "op", "operator")
        add_account(connection, "looker", "viewer")
    client, _ = log_in(service, "op")
    token = field(client.get("/admin/account"))

    def post(name, status=200, **form):
        answer = client.post(f"{EXPORTS}/{name}", data={**form, "csrf_token": token})
        assert answer.status_code == status, answer.get_data(as_text=True)
        if status == 200:
            assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
            assert "Content-Length" not in answer.headers  # sent as it is made
        return answer.get_data()

    post.service, post.client = service, client
    return post


def read_again(path, content):
    path.write_bytes(content)
    chunks = list(read_events(path, ReadOptions(), to_us(NOW)))
    assert not any(chunk.rejections for chunk in chunks)
    return pa.concat_tables(chunk.events.drop_columns(["position"]) for chunk in chunks)


def test_exported_events_are_read_again_as_they_are(exporter, tmp_path, monkeypatch):
    monkeypatch.setattr(event_batches, "BATCH_ROWS", 100)
    pages = {}
    for kind in ("jsonl", "csv", "parquet"):
        pages[kind] = read_again(tmp_path / f"e.{kind}", exporter("events", format=kind))
    assert pages["jsonl"].equals(pages["csv"]) and pages["csv"].equals(pages["parquet"])
    by_command = tmp_path / "by-command.parquet"
    settings = exporter.service.app.extensions["recsys"].settings
    pipeline.export_events(settings, exporter.service.database, by_command, NOW)
    assert pages["parquet"].equals(read_again(by_command, by_command.read_bytes()))
    moments = pages["csv"]["timestamp_us"].to_pylist()
    day = from_us(sorted(moments)[len(moments) // 2]).date()
    part = read_again(
        tmp_path / "day.jsonl",
        exporter("events", format="jsonl", to=str(day), **{"from": str(day)}),
    )
    days = [from_us(one).date() for one in moments]
    assert part.num_rows == days.count(day) > 0
    assert {from_us(one).date() for one in part["timestamp_us"].to_pylist()} == {day}
    empty = exporter("events", format="parquet", to="2001-01-01")
    assert pq.read_table(io.BytesIO(empty)).num_rows == 0
    for wrong in (
        {"format": "xlsx"},
        {"format": "csv", "from": "yesterday"},
        {"format": "csv", "from": "2024-02-02", "to": "2024-02-01"},
    ):
        exporter("events", 422, **wrong)
    with exporter.service.database.connect() as connection:
        line = audit_rows.list_audit(connection, actor="op", action="events.export")[1]
    assert (line.role, line.details["from"], line.details["format"]) == (
        "operator",
        str(day),
        "jsonl",
    )


def test_exported_items_are_read_again(exporter, tmp_path):
    for kind in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"items.{kind}"
        path.write_bytes(exporter("items", format=kind))
        found = {one.item_id for chunk in read_items(path, ItemOptions()) for one in chunk.items}
        with exporter.service.database.connect() as connection:
            stored = {one.item_id for one in item_rows.list_items(connection, None, None, 10_000)}
        assert found == stored != set()


def test_a_user_gets_all_that_is_stored(exporter, monkeypatch):
    service = exporter.service
    monkeypatch.setattr("recsys.storage.user_export.PAGE", 3)
    events = [
        {"user_id": "ann", "item_id": f"i{at}", "event_id": f"e{at}", "properties": {"at": at}}
        for at in range(8)
    ]
    events.append({"session_id": "phone", "item_id": "i9", "event_id": "s1"})
    service.post("/events", events)
    answer = service.get("/users/ann/recommendations?k=3")
    shown = answer["items"][0]["item_id"]
    click = {"user_id": "ann", "item_id": shown, "recommendation_id": answer["recommendation_id"]}
    service.post("/events", [click, {"user_id": "bob", "item_id": "i1"}])
    service.app.extensions["recsys"].impressions.flush()
    with service.database.begin() as connection:
        user_rows.merge(connection, "ann", "s:phone", 1)
        given = check_user("ann", {"city": "Oslo"})
        attribute_rows.put_attributes(connection, [given], "replace", 1)
        later = [Event("ann", None, f"l{at}", "like", 2**52) for at in range(4)]
        feedback_rows.write_feedback(connection, later, False, 1)
    found = json.loads(exporter("user", user_id="ann"))
    assert (found["user_id"], found["merged_sessions"]) == ("ann", ["phone"])
    assert found["attributes"] == {"city": "Oslo"}
    ids = [one["event_id"] for one in found["events"]]
    assert {*(f"e{at}" for at in range(8)), "s1"} <= set(ids) and len(ids) == 10
    assert {"at": 7} in [one["properties"] for one in found["events"]]
    assert not any(one["user_id"] == "bob" for one in found["events"])
    assert [one["recommendation_id"] for one in found["answers"]] == [answer["recommendation_id"]]
    assert found["quarantine"] == []
    assert [one["item_id"] for one in found["deferred"]] == ["l0", "l1", "l2", "l3"]
    exporter("user", 404, user_id="nobody")
    exporter("user", 422, user_id="")
    with service.database.connect() as connection:
        lines = audit_rows.list_audit(connection, actor="op", action="user.export")
        name = tombstone_rows.pseudonym(connection, "ann")
    assert [line.subject for line in lines] == [name]
    page = exporter.client.get("/admin/users/one?user_id=ann").get_data(as_text=True)
    assert f'action="{EXPORTS}/user"' in page


def test_a_viewer_exports_nothing(exporter):
    viewer, _ = log_in(exporter.service, "looker")
    assert viewer.get(EXPORTS).status_code == 403
    assert EXPORTS not in viewer.get("/admin/data-quality").get_data(as_text=True)
    token = field(viewer.get("/admin/account"))
    for name in ("events", "items", "user"):
        answer = viewer.post(f"{EXPORTS}/{name}", data={"csrf_token": token, "format": "csv"})
        assert answer.status_code == 403


def test_a_mapped_table_is_exported(tmp_path, add_account):
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE clicks (no INTEGER PRIMARY KEY, u TEXT, i TEXT, t INTEGER)")
        shop.execute("CREATE INDEX by_user ON clicks (u, t)")
        rows = [(at, f"u{at % 5}", f"i{at % 3}", 1_714_521_600_000 + at) for at in range(50)]
        shop.executemany("INSERT INTO clicks VALUES (?, ?, ?, ?)", rows)
    events = {
        "url": f"sqlite:///{tmp_path}/shop.db", "table": "clicks", "user_column": "u",
        "item_column": "i", "timestamp_column": "t", "order_column": "no", "unit": "ms",
    }  # fmt: skip
    database = Database(f"sqlite:///{tmp_path}/recsys.db")
    migrate.upgrade(database)
    with database.begin() as connection:
        add_account(connection, "op", "operator")
    app = create_app(Settings(registry={"path": tmp_path / "models"}, events=events), database)

    class Mapped:
        def __init__(self):
            self.app = app

    client, _ = log_in(Mapped(), "op")
    token = field(client.get("/admin/account"))
    form = {"format": "csv", "csrf_token": token}
    content = client.post(f"{EXPORTS}/events", data=form).get_data()
    assert read_again(tmp_path / "mapped.csv", content).num_rows == 50
    form = {"user_id": "u1", "csrf_token": token}
    found = json.loads(client.post(f"{EXPORTS}/user", data=form).get_data())
    assert len(found["events"]) == 10
    app.extensions["recsys"].close()
    database.close()
