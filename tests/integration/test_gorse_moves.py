"""Moving from Gorse: its exports imported, and its tables read where they are."""

import json
import re
import tomllib
from contextlib import closing
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from recsys import pipeline
from recsys.config import Settings
from recsys.events.identity import Owner
from recsys.events.times import to_us
from recsys.ingest.event_files import ReadOptions
from recsys.storage.engine.database import Database
from recsys.storage.entities import attribute_rows, item_rows, key_rows
from recsys.storage.events_source import open_events_source
from recsys.storage.external import external_items, external_users
from recsys.storage.schema import migrate
from tests.conftest import ROOT

NOW = datetime(2025, 1, 1, tzinfo=UTC)
USER = {"UserId": "u", "Labels": {"age": [24]}, "Comment": "c"}
ITEM = {
    "ItemId": "i",
    "IsHidden": False,
    "Categories": ["a"],
    "Timestamp": "1962-01-01T00:00:00Z",
    "Labels": ["x"],
    "Comment": "Title",
}
FEEDBACK = [
    {
        "FeedbackType": "read",
        "UserId": "u",
        "ItemId": item,
        "Timestamp": f"2024-01-0{day}T00:00:00Z",
    }
    for day, item in enumerate("ijk", 1)
]
# As Gorse makes them, but for columns that it adds to no row by itself.
TABLES = {
    "sqlite": (
        "CREATE TABLE users (user_id text PRIMARY KEY, labels json, comment text)",
        "CREATE TABLE items (item_id text PRIMARY KEY, is_hidden numeric, categories json, "
        "time_stamp datetime, labels json, comment text)",
        "CREATE TABLE feedback (feedback_type text, user_id text, item_id text, value real, "
        "time_stamp datetime, updated datetime, labels json, comment text, "
        "PRIMARY KEY (feedback_type, user_id, item_id))",
    ),
    "postgresql": (
        "CREATE TABLE users (user_id varchar(256) PRIMARY KEY, labels jsonb, comment text)",
        "CREATE TABLE items (item_id varchar(256) PRIMARY KEY, is_hidden bool, categories json, "
        "time_stamp timestamptz, labels json, comment text)",
        "CREATE TABLE feedback (feedback_type varchar(256), user_id varchar(256), "
        "item_id varchar(256), value float8, time_stamp timestamptz, updated timestamptz, "
        "labels json, comment text, PRIMARY KEY (feedback_type, user_id, item_id))",
    ),
}
ROWS = (
    """INSERT INTO users VALUES ('u', '{"age": 24}', 'c'), ('v', 'null', '')""",
    """INSERT INTO items VALUES ('i', false, '["a", "b"]', '2024-01-01 00:00:00+00:00', '["x"]',
    'Title'), ('j', true, 'null', '0001-01-01 00:00:00+00:00', 'null', '')""",
    """INSERT INTO feedback VALUES
    ('read', 'u', 'i', 1, '2024-01-01 10:00:00+00:00', '2024-01-01 10:00:00+00:00', 'null', ''),
    ('like', 'u', 'j', 0, '2024-01-02 10:00:00.25+00:00', '2024-01-02 10:00:00+00:00', 'null', '')""",
)


def test_an_export_is_imported_once_and_its_clients_go_on(
    database, tmp_path, Service, settings_for
):
    path = tmp_path / "gorse.jsonl"
    rows = [USER, ITEM, *FEEDBACK, {"UserId": "a/b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ReadOptions(format="gorse")
    done = pipeline.import_events(database, path, options, NOW)
    assert (done.read, done.accepted, done.duplicates, done.rejected) == (3, 3, 0, 0)
    assert done.notes == {"users stored": 1, "items stored": 1, "users and items rejected": 1}
    again = pipeline.import_events(database, path, options, NOW)
    assert (again.accepted, again.duplicates) == (0, 3)
    with closing(Service(database, settings_for(tmp_path / "models", gorse=True))) as service:
        with database.begin() as connection:
            key = key_rows.create_key(connection, "gorse", ["read", "write"], 1)

        def get(path):
            return service.client.get(f"/api/{path}", headers={"X-API-Key": key}).get_json()

        assert get("user/u") == USER and get("item/i") == ITEM
        listed = get("feedback")["Feedback"]
        assert [{name: row[name] for name in FEEDBACK[0]} for row in listed] == FEEDBACK


def recipe():
    """The [events] section that the document gives."""
    document = (ROOT / "docs" / "gorse.md").read_text()
    (block,) = re.findall(r"```toml\n(\[events\].*?)```", document, re.S)
    return tomllib.loads(block)["events"]


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_gorses_tables_are_read_where_they_are(where, tmp_path, request):
    if where == "sqlite":
        theirs = f"sqlite:///{tmp_path}/gorse.db"
    else:
        theirs = request.getfixturevalue("gorse_postgres")
    opened = Database(theirs)
    with opened.begin() as connection:
        for statement in (*TABLES[where], *ROWS):
            connection.execute(text(statement))
        connection.execute(text("CREATE INDEX by_user ON feedback (user_id, time_stamp)"))
    opened.close()
    settings = Settings(registry={"path": tmp_path}, events={**recipe(), "url": theirs})
    own = Database(f"sqlite:///{tmp_path}/own.db")
    migrate.upgrade(own)
    source = open_events_source(settings, own)
    with closing(own), closing(source):
        frame = source.frame_since(to_us(NOW))
        assert len(frame) == 2
        with own.connect() as connection:
            events = source.history(connection, Owner("u")).events
        assert [(one.item_id, one.event_type) for one in events] == [("i", "read"), ("j", "like")]
        external_items.copy_items(settings, own, to_us(NOW))
        external_users.copy_users(settings, own, to_us(NOW))
        with own.connect() as connection:
            items = item_rows.get_items(connection, ["i", "j"])
            user = attribute_rows.get_attributes(connection, "u")
        assert (items["i"].title, items["i"].categories) == ("Title", ["a", "b"])
        assert (items["i"].available, items["j"].available) == (True, False)
        assert user.attributes["comment"] == "c"


@pytest.fixture
def gorse_postgres(postgres_server):
    import uuid

    from tests.conftest import _admin
    from tests.databases import address_of

    name = f"gorse_{uuid.uuid4().hex[:12]}"
    _admin(postgres_server, f"CREATE DATABASE {name}")
    yield address_of(postgres_server, name)
    _admin(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
