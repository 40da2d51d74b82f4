"""docs/own-table.md: its example runs, and the program prints the statements that it shows."""

import re
import tomllib
import uuid
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from recsys.config import EventsSettings, Settings
from recsys.storage.engine.database import Database
from recsys.storage.external.external_database import parse_source_url
from recsys.storage.external.external_events import ExternalEvents

PAGE = (Path(__file__).parents[2] / "docs" / "own-table.md").read_text()


def test_the_worked_example(postgres_server, tmp_path):
    made, statements = re.findall(r"```sql\n(.*?)```", PAGE, re.S)
    keys = tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE, re.S)[1])["events"]
    name = f"map_docs_{uuid.uuid4().hex[:10]}"
    url = make_url(postgres_server).set(database=name).render_as_string(hide_password=False)

    def run(at, *statements):
        engine = create_engine(parse_source_url(at), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    run(postgres_server, f"CREATE DATABASE {name}")
    try:
        run(url, "CREATE SCHEMA shop", made)
        run(
            url,
            "INSERT INTO shop.page_views VALUES (1, 7, 'tea', '2025-01-01 01:00', 'view'), "
            "(2, 7, 'cup', '2025-01-01 01:01', 'view'), (3, 7, 'pot', '2025-01-01 01:02', 'bot')",
        )
        keys["url"] = url
        own = Database(f"sqlite:///{tmp_path}/recsys.db")
        source = ExternalEvents(Settings(events=keys), own)
        resolved = source.resolved()
        assert [resolved.grant, *resolved.create_index] == statements.strip().splitlines()
        rows = [r for b in source.rows().batches(2 * 10**15) for r in b.to_pylist()]
        assert [(row["user_id"], row["item_id"]) for row in rows] == [("7", "tea"), ("7", "cup")]
        assert rows[0]["timestamp_us"] == 1_735_689_600_000_000  # midnight in UTC
        source.close()
        own.close()
    finally:
        run(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def test_every_key_that_it_names_is_one():
    named = set(re.findall(r"`(\w+_(?:column|rows|seconds|posts))", PAGE)) | {"timezone", "unit"}
    assert named <= set(EventsSettings.model_fields)
