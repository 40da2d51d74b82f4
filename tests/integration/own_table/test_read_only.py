"""What the server itself hears of a mapped table's reader: SELECT, and what sets a session up."""

import re
from contextlib import closing
from datetime import UTC, datetime

import pyarrow.compute as pc
import pytest

from bench.drills.fault_stage import own_postgres
from recsys.config import Settings
from recsys.events.identity import Owner
from recsys.events.times import to_us
from recsys.sequence_store.store import SequenceStore
from recsys.storage.dashboard.external_event_views import ExternalEventViews
from recsys.storage.dashboard.visitor_views import VisitorQuery
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_rows import PopularityQuery
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.schema import migrate
from recsys.training.dry_run import check_log

TABLE = """CREATE TABLE views (no bigint PRIMARY KEY, who text, what text, at timestamptz);
    CREATE INDEX ON views (who, at); CREATE INDEX ON views (at);
    CREATE ROLE reader LOGIN; GRANT SELECT ON views TO reader"""
MAY = re.compile(
    r"(SELECT|BEGIN|SAVEPOINT|RELEASE|COMMIT|ROLLBACK|SHOW|DEALLOCATE|CLOSE|FETCH|SET (SESSION CHARACTERISTICS AS )?TRANSACTION|"
    r"SET (LOCAL )?TIME ZONE|SET (LOCAL )?statement_timeout|SET jit|COPY \(\s*SELECT|DECLARE .c_\w+. CURSOR FOR\s+SELECT)\b",
    re.IGNORECASE,
)


def test_the_server_hears_nothing_but_reads(tiny_shop, tmp_path):
    with own_postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL binaries")
        with closing(Database(server.url)) as owner:
            with owner.begin() as connection:
                for statement in TABLE.split(";"):
                    connection.exec_driver_sql(statement)
                with connection.connection.cursor().copy("COPY views FROM STDIN") as copy:
                    known = tiny_shop.events.filter(pc.is_valid(tiny_shop.events["user_id"]))
                    for number, row in enumerate(known.to_pylist()):
                        at = datetime.fromtimestamp(row["timestamp_us"] / 1e6, UTC)
                        copy.write_row((number, row["user_id"], row["item_id"], at.isoformat()))
            with owner.connect() as connection:  # without a transaction
                connection.exec_driver_sql("ALTER ROLE reader SET log_statement = 'all'")
                connection.exec_driver_sql("ALTER SYSTEM SET log_line_prefix = 'by=%%u '")
                connection.exec_driver_sql("SELECT pg_reload_conf()")
        url = server.url.replace("//postgres@", "//reader@")
        settings = Settings(
            events={
                "url": url,
                "table": "views",
                "user_column": "who",
                "item_column": "what",
                "timestamp_column": "at",
                "order_column": "no",
            },
            registry={"path": tmp_path},
        )
        with (
            closing(Database(f"sqlite:///{tmp_path}/own.db")) as own,
            closing(ExternalEvents(settings, own)) as source,
        ):
            migrate.upgrade(own)
            now_us = to_us(datetime.now(UTC))
            check_log(settings, own, datetime.now(UTC))
            assert SequenceStore(tmp_path / "s", 1, mapped=source.rows()).update(own).rows > 1_000
            views = ExternalEventViews(source)
            views.count_activity(now_us)
            with own.connect() as connection:
                user = known["user_id"][0].as_py()
                assert source.history(connection, Owner(user)).events
                assert views.time_line(connection, Owner(user), 10)
                assert views.recent_visitors(connection, VisitorQuery(10, now_us)).visitors
                assert source.popular_items(connection, PopularityQuery(0))
        log = (server.folder / "log").read_text()
    heard = re.findall(r"by=reader LOG:  (?:statement|execute [^:]*): (.*)", log)
    assert sum(line.lstrip().upper().startswith(("SELECT", "COPY (")) for line in heard) > 10
    assert sorted({line for line in heard if line and not MAY.match(line.lstrip())}) == []
