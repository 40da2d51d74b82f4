"""A click table of somebody else's, in each database, to be pointed at."""

import os
import uuid
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, make_url, text

from recsys.config import Settings
from recsys.sequence_store.store import SequenceStore
from recsys.storage.engine.database import Database
from recsys.storage.external.external_database import parse_source_url
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.schema import migrate

KINDS = ("sqlite", "postgresql", "mysql")
# Column names that need quoting, a type that is not ours, and a table in a schema of its own.
DDL = {
    "sqlite": """CREATE TABLE "Click Log" ("No" INTEGER PRIMARY KEY, "Kunde" TEXT, "select" TEXT,
        "Wann" INTEGER, "art" TEXT, "sid" TEXT, "eid" TEXT)""",
    "postgresql": """CREATE TABLE "Click Log" ("No" BIGINT PRIMARY KEY, "Kunde" VARCHAR(40),
        "select" TEXT, "Wann" TIMESTAMPTZ, "art" VARCHAR(20), "sid" TEXT, "eid" TEXT)""",
    "mysql": """CREATE TABLE `Click Log` (`No` BIGINT PRIMARY KEY, `Kunde` VARCHAR(40),
        `select` VARCHAR(64), `Wann` DATETIME(6), `art` VARCHAR(20), `sid` VARCHAR(64), `eid`
        VARCHAR(64)) CHARACTER SET utf8mb4""",
}
INDEX = {
    "sqlite": 'CREATE INDEX by_user ON "Click Log" ("Kunde", "Wann")',
    "postgresql": 'CREATE INDEX ON "Click Log" ("Kunde", "Wann")',
    "mysql": "CREATE INDEX by_user ON `Click Log` (`Kunde`, `Wann`)",
}
MAPPED = {
    "table": "Click Log",
    "user_column": "Kunde",
    "item_column": "select",
    "timestamp_column": "Wann",
    "event_type_column": "art",
    "session_column": "sid",
    "order_column": "No",
}
MORE = {"sqlite": {"unit": "us"}, "postgresql": {}, "mysql": {"timezone": "UTC"}}


class ClickTable:
    """A table with foreign names in a database of its own."""

    def __init__(self, kind, url):
        self.kind, self.url = kind, url
        self.run(DDL[kind])

    def run(self, *statements, rows=()):
        """Statements of the table's owner."""
        engine = create_engine(parse_source_url(self.url))
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), *([rows] if rows else []))
        engine.dispose()

    def index(self):
        self.run(INDEX[self.kind])

    def fill(self, events, first=1, numbers=None):
        """Rows of an event table (EVENT_SCHEMA), numbered from `first` or as given."""
        quote = "`" if self.kind == "mysql" else '"'
        times = {
            "sqlite": ":w",
            "postgresql": "to_timestamp(0) + :w * interval '1 microsecond'",
            "mysql": "'1970-01-01' + INTERVAL :w MICROSECOND",
        }
        rows = [
            {
                "n": number,
                "u": row["user_id"],
                "i": row["item_id"],
                "w": row["timestamp_us"],
                "a": row["event_type"],
                "s": row["session_id"],
                "e": row["event_id"] or f"e{number}",
            }
            for number, row in zip(
                numbers or range(first, first + events.num_rows), events.to_pylist(), strict=True
            )
        ]
        into = f"INSERT INTO {quote}Click Log{quote}"
        self.run(f"{into} VALUES (:n, :u, :i, {times[self.kind]}, :a, :s, :e)", rows=rows)

    def settings(self, folder, tiny_shop=None, **more):
        """Settings that point at it; those of the tiny shop's model where that is given."""
        base = {}
        if tiny_shop is not None:
            base = tiny_shop.settings.model_dump(exclude={"events", "registry", "serving"})
        events = {**MAPPED, **MORE[self.kind], "url": self.url, **more}
        serving = {"reload_seconds": 0.1, "control_share": 0}
        return Settings.model_validate(
            {**base, "events": events, "registry": {"path": folder}, "serving": serving}
        )


def store_of(settings, database, processes=1):
    rows = ExternalEvents(settings, database).rows()
    return SequenceStore(settings.registry.path / ".sequences", processes, mapped=rows)


@contextmanager
def _database(kind, request, tmp_path):
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path}/shop {uuid.uuid4().hex[:6]}.db"
        return
    name = f"map_shop_{uuid.uuid4().hex[:10]}"
    server = mariadb() if kind == "mysql" else request.getfixturevalue("postgres_server")
    _admin(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    _admin(server, f"DROP DATABASE {name}{' WITH (FORCE)' if kind == 'postgresql' else ''}")


def mariadb():
    """Address of a MariaDB or MySQL server on which databases may be created; skips without one."""
    pytest.importorskip("pymysql", reason="no driver: pip install 'recsys[mysql]'")
    url = os.environ.get("TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/")
    try:
        _admin(url, "SELECT 1")
    except Exception as error:
        if "TEST_MARIADB_URL" in os.environ:
            raise
        pytest.skip(f"no MariaDB at 127.0.0.1:3306 ({type(error).__name__}): set TEST_MARIADB_URL")
    return url


def _admin(url, statement):
    engine = create_engine(parse_source_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def click_tables(request, tmp_path):
    """click_tables(kind): a context with an empty ClickTable in a database of that kind."""

    @contextmanager
    def made(kind):
        with _database(kind, request, tmp_path) as url:
            yield ClickTable(kind, url)

    return made


@pytest.fixture(params=KINDS)
def clicks(request, click_tables):
    """An empty ClickTable in each kind of database."""
    with click_tables(request.param) as made:
        yield made


@pytest.fixture(params=("sqlite", "postgresql"))
def two_clicks(request, click_tables):
    """The same where two kinds are enough."""
    with click_tables(request.param) as made:
        yield made


@pytest.fixture(name="store_of")
def store_maker():
    return store_of


@pytest.fixture
def own(tmp_path):
    """The service's own database."""
    database = Database(f"sqlite:///{tmp_path}/recsys.db")
    migrate.upgrade(database)
    yield database
    database.close()
