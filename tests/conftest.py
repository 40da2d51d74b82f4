"""Real databases for every test that asks: SQLite files, and a PostgreSQL server.

The server is the one in TEST_POSTGRES_URL, else one started here from the installed binaries; where
there is neither, its tests are skipped with the reason, and fail where CI=true.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import structlog
from sqlalchemy import create_engine, event, make_url, text

from recsys.config import Settings
from recsys.config.process import collect_rarely
from recsys.demo.simulation import Shop, ShopSize
from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.events.times import to_us
from recsys.models.bundle import Bundle
from recsys.models.version_facts import VersionFacts
from recsys.registry import new_version, write_version
from recsys.storage.engine.database import Database
from recsys.storage.entities import version_rows
from recsys.storage.schema import migrate
from recsys.training.event_log import make_log
from recsys.training.fit import fit_model
from recsys.training.run import Run
from tests.compiled import share_compiled
from tests.databases import PostgresDatabases, address_of

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TEST_DATA_DIR", ROOT.parent / "shared" / "data"))


# For what is the same on both and takes long: PostgreSQL's turn comes with `make drills`.
postgresql_in_drills = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)

collect_rarely()  # a quarter of what it takes to load all tests
share_compiled()


def unavailable(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a skip is a failure where CI=true)")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _process_as_it_was():
    """A command that is run in this process sets up logging and the umask for all of it."""
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real logs; tests on them are skipped where they are absent."""
    if not (DATA / "bol_clicks.parquet").is_file():
        pytest.skip("no real logs: set TEST_DATA_DIR")
    return DATA


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a server on which databases may be created."""
    given = os.environ.get("TEST_POSTGRES_URL")
    if given:
        yield given
        return
    binaries = _binaries()
    if binaries is None:
        unavailable("no PostgreSQL: set TEST_POSTGRES_URL or install its binaries")
        raise AssertionError
    # initdb refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="recsys-pg-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} "
    options += "-c fsync=off -c full_page_writes=off -c synchronous_commit=off"
    run = {"user": user, "check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"],
        **run,
    )
    log = folder / "log"
    start = [binaries / "pg_ctl", "-D", folder / "data", "-l", log, "-w", "-o", options, "start"]
    subprocess.run(start, **run)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], **run
        )
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: str) -> Iterator[PostgresDatabases]:
    made = PostgresDatabases(postgres_server)
    yield made
    made.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a migrated database."""
    path = tmp_path_factory.mktemp("template") / "recsys.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    database.close()
    assert [found.name for found in path.parent.iterdir()] == ["recsys.db"]
    return path


def _admin(server: str, statement: str) -> None:
    url = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/recsys.db"
        return
    server = request.getfixturevalue("postgres_server")
    name = f"recsys_{uuid.uuid4().hex[:12]}"
    _admin(server, f"CREATE DATABASE {name}")
    yield address_of(server, name)
    _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a migrated database; every test that asks runs on both kinds."""
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        shutil.copy(template, tmp_path / "recsys.db")
        yield f"sqlite:///{tmp_path}/recsys.db"
        return
    with request.getfixturevalue("postgres_databases").lent() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def read_only() -> Callable[[Database], AbstractContextManager[None]]:
    """read_only(database): its connections are refused writes in the block, as after a failover."""
    return _read_only


@contextmanager
def _read_only(database: Database) -> Iterator[None]:
    asked = {
        "sqlite": "PRAGMA query_only = ON",
        "postgresql": "SET default_transaction_read_only = on",
    }

    def refuse(connection, _record) -> None:
        connection.execute(asked[database.dialect])
        connection.commit()

    event.listen(database.engine, "connect", refuse)
    database.close()
    try:
        yield
    finally:
        event.remove(database.engine, "connect", refuse)
        database.close()


@dataclass(frozen=True)
class TinyShop:
    """A small simulated shop and a model that has learned it."""

    shop: Shop
    events: pa.Table
    bundle: Bundle
    settings: Settings


@pytest.fixture(scope="session")
def tiny_shop() -> TinyShop:
    end_us = to_us(datetime(2025, 3, 1, tzinfo=UTC))
    shop = Shop(ShopSize(products=60, shoppers=150, events=4_000), 3, end_us)
    events = pa.concat_tables(shop.events())
    settings = Settings(
        sequences={"input_event_types": ["view"], "target_event_types": ["view"], "max_length": 20},
        model={"width": 16},
        training={"epochs": 2, "batch_events": 128, "threads": 1},
        evaluation={"bootstrap_draws": 100},
        promotion={"min_positions": 50},
    )
    log = make_log(frame_from_table(events), settings)
    now = datetime(2025, 3, 1, tzinfo=UTC)
    version = new_version(now)
    fitted = fit_model(log, settings, version, cut_for_share(log.sequences, 0.1), Run(now))
    bundle = replace(fitted.bundle, ranking="lstm", facts=VersionFacts(data_end_us=end_us))
    return TinyShop(shop, events, bundle, settings)


@pytest.fixture(scope="session")
def version_row() -> Callable[..., version_rows.VersionRow]:
    """version_row(name, **more): a candidate of which nothing else is known."""
    return _version_row


def _version_row(name: str, **more: Any) -> version_rows.VersionRow:
    known = {
        "version": name,
        "created_at_us": 1,
        "state": "candidate",
        "ranking": "lstm",
        "data_start_us": 0,
        "data_end_us": 9,
        "event_count": 1,
        "user_count": 1,
        "item_count": 1,
        "facts": {"metrics": {}},
        "verdict": {},
        "manifest_sha256": "0" * 64,
        "size_bytes": 1,
    }
    return version_rows.VersionRow(**{**known, **more})


@pytest.fixture(scope="session")
def publish() -> Callable[..., str]:
    """publish(tiny_shop, database, folder): register and promote the model; its version."""
    return _publish


def _publish(tiny: TinyShop, database: Database, folder: Path, version: str | None = None) -> str:
    bundle = tiny.bundle if version is None else replace(tiny.bundle, version=version)
    digest, size = write_version(folder, bundle)
    row = _version_row(
        bundle.version,
        ranking=bundle.ranking,
        data_end_us=tiny.shop.end_us,
        event_count=tiny.events.num_rows,
        user_count=150,
        item_count=bundle.vocabulary.item_count,
        facts={"data_end_us": bundle.facts.data_end_us, "metrics": {}},
        verdict={"promote": True, "reason": "in a test", "numbers": {}},
        manifest_sha256=digest,
        size_bytes=size,
    )
    with database.begin() as connection:
        version_rows.add_version(connection, row)
        version_rows.deploy(connection, bundle.version, 1, "test", "in a test")
    return bundle.version
