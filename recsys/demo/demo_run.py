"""The demo from an empty folder to a served shop: simulate, import, train, give out keys, serve."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import orjson

from recsys import pipeline
from recsys.commands import credentials
from recsys.config import Settings, load_settings
from recsys.demo.launches import launch
from recsys.demo.simulation import Shop, ShopSize
from recsys.demo.visitors import Visitors
from recsys.errors import ConflictError, InputError, RecsysError, StorageUnavailableError
from recsys.events.export_files import writing
from recsys.events.times import to_us
from recsys.models.version_facts import Figures
from recsys.ops import upkeep
from recsys.progress import Say
from recsys.storage.engine.database import Database, open_database
from recsys.storage.entities import item_rows, key_rows
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.entities.passwords import new_password
from recsys.storage.schema import migrate
from recsys.training.run import Run

FINISHED = "demo.json"  # written once a demo is trained
SIMULATION = 2  # raised where the same size and seed make another shop
KEYS = ("demo", "storefront")  # names of the keys that it is given

CONFIG = """\
[database]
url = "sqlite:///{folder}/recsys.db"

[registry]
path = "{folder}/models"

[sequences]
input_event_types = ["view"]
target_event_types = ["view"]

[model]
embedding_dropout = 0.2

[attribution]
currency = "EUR"

[training]
epochs = 6
final_epochs = 1

[evaluation]
max_positions = 10000

[serving]
host = "127.0.0.1"
port = {port}

[auth]
collect_per_minute = 600

[logging]
level = "warning"
"""


@dataclass(frozen=True)
class DemoResult:
    """What a demo has imported and trained."""

    events: int
    users: int
    items: int
    model_version: str
    promoted: bool
    metrics: Figures
    positions: int
    example_user: str
    table: str  # of every ranker's figures, for people


@dataclass(frozen=True)
class Access:
    """Secrets that open a demo's service."""

    admin_key: str
    password: str  # of the dashboard's account `admin`


@dataclass(frozen=True)
class FinishedDemo:
    """A demo that was trained, as its folder remembers it."""

    products: int
    shoppers: int
    events: int
    seed: int
    made_at_us: int
    example_user: str
    simulation: int

    def shop(self) -> Shop:
        """The shop that was simulated."""
        size = ShopSize(self.products, self.shoppers, self.events)
        return Shop(size, self.seed, self.made_at_us)

    def keep(self, folder: Path) -> None:
        """Have the folder remember it."""
        (folder / FINISHED).write_bytes(orjson.dumps(asdict(self)))


def finished_demo(folder: Path) -> FinishedDemo | None:
    """The demo that was made in `folder`; None where none was finished by this release."""
    try:
        found = FinishedDemo(**orjson.loads((folder / FINISHED).read_bytes()))
    except (OSError, TypeError, orjson.JSONDecodeError):
        return None
    return found if found.simulation == SIMULATION else None


def free_port(host: str, port: int) -> int:
    """`port`, or some free one for 0. Raises InputError where another program has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return int(probe.getsockname()[1])
        except OSError:
            expected = "another program uses it; choose a free one, 0 for any"
            raise InputError("--port", str(port), expected) from None


def brought_back(folder: Path, port: int) -> Path:
    """The config.toml of a finished demo, with this port to serve on; its tables are up to date then."""
    config = folder / "config.toml"
    text = re.sub(r"(?m)^port = .*$", f"port = {port}", config.read_text())
    config.write_text(re.sub(r"(?m)^storefront_key = .*\n", "", text))
    with closing(open_database(load_settings(config))) as database:
        migrate.upgrade(database)
    return config


def prepare_folder(folder: Path, port: int) -> Path:
    """Remove what an earlier demo made, and nothing else; the new config.toml."""
    (folder / FINISHED).unlink(missing_ok=True)
    for name in ("recsys.db", "recsys.db-wal", "recsys.db-shm", "events.parquet", "items.jsonl"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "models", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.toml"
    there = orjson.dumps(str(folder.resolve())).decode()[
        1:-1
    ]  # within quotes, as TOML has them too
    config.write_text(CONFIG.format(folder=there, port=port))
    return config


def simulate(database: Database, shop: Shop, log: Path, now: datetime) -> None:
    """Make the tables, store the shop's items, and write its clicks to the file `log`."""
    migrate.upgrade(database)
    with writing(log) as write:
        for table in shop.events():
            for batch in table.to_batches():
                write(batch)
    with database.begin() as connection:
        item_rows.put_items(connection, shop.catalogue.items(drawn=True), to_us(now))


def train_beside_oracle(
    settings: Settings, database: Database, shop: Shop, events: int, run: Run
) -> DemoResult:
    """Train and promote on `events` imported ones, ranked beside the shop's own probabilities.

    Raises RecsysError where the gate does not let the version through.
    """
    trained = pipeline.train(
        settings,
        database,
        run,
        extra=lambda vocabulary: {
            "oracle": lambda histories: shop.oracle_scores(histories, vocabulary)
        },
    )
    if not trained.promoted:
        raise RecsysError(f"the demo's model was not promoted: {trained.reason}")
    size = shop.size
    return DemoResult(
        events=events,
        users=size.shoppers,
        items=size.products,
        model_version=trained.version,
        promoted=trained.promoted,
        metrics=trained.evaluation.metrics,
        positions=len(trained.evaluation.positions),
        example_user=f"shopper-{0:0{max(6, len(str(size.shoppers)))}d}",
        table=trained.evaluation.table(),
    )


def count_figures(settings: Settings, database: Database, now: datetime, say: Say) -> None:
    """What the dashboard's charts show, counted as the scheduler's job would."""
    upkeep.count_activity(settings, database, now)
    upkeep.report_quality(settings, database, now, say)


def give_access(settings: Settings, config: Path, now: datetime) -> Access:
    """Make an admin key and login, and a key for the shop's page, which goes into `config`.

    What an earlier run of the same demo was given is revoked: nobody has its secrets any more.
    """
    port = settings.serving.port
    origins = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
    database, now_us, password = open_database(settings), to_us(now), new_password()
    with database.connect() as connection:
        earlier = [one for one in key_rows.list_keys(connection) if one.name in KEYS]
    for one in earlier:
        if one.revoked_at_us is None:
            credentials.revoke_key(database, CLI, one.key_id, now_us)
    admin = credentials.create_key(database, CLI, KEYS[0], ["admin"], (), now_us)
    page = credentials.create_key(database, CLI, KEYS[1], ["collect"], origins, now_us)
    try:
        credentials.create_account(database, CLI, "admin", password, "admin", now_us)
    except ConflictError:  # of this demo's last run
        credentials.set_password(database, CLI, "admin", password, now_us)
    text = config.read_text()
    config.write_text(text.replace("[serving]\n", f'[serving]\nstorefront_key = "{page}"\n'))
    return Access(admin, password)


@dataclass(frozen=True)
class Bustle:
    """What happens in the shop while it is open."""

    launch_seconds: int = 0  # between new products that go with what was clicked meanwhile; 0: none
    visitors_a_minute: int = 0  # simulated ones


def serve_until_stopped(config: Path, shop: Shop, bustle: Bustle, visitors: Visitors) -> None:
    """The scheduler and the service, until Ctrl-C. Raises RecsysError where one of them ends by itself."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    own = [sys.executable, "-m"]
    scheduler = subprocess.Popen([*own, "recsys", "schedule", "--config", str(config)])  # noqa: S603
    server = subprocess.Popen([*own, "recsys", "serve", "--config", str(config)])  # noqa: S603
    database, launched = open_database(load_settings(config)), time.time()
    products = {item.item_id: item for item in shop.items}
    launch_seconds, a_minute, stopped = (
        bustle.launch_seconds,
        bustle.visitors_a_minute,
        threading.Event(),
    )
    if a_minute:
        threading.Thread(target=visitors.come, args=(a_minute, stopped), daemon=True).start()
    try:
        while server.poll() is None and scheduler.poll() is None:
            time.sleep(0.5)
            now = time.time()
            if launch_seconds and now >= launched + launch_seconds:
                with suppress(StorageUnavailableError):
                    launch(database, products, int(launched * 1e6), int(now * 1e6))
                launched = now
        raise RecsysError("the demo's service or its scheduler ended; what it said stands above")
    except KeyboardInterrupt:
        pass
    finally:
        stopped.set()
        database.close()
        for process in (server, scheduler):
            process.terminate()
        for process in (server, scheduler):
            process.wait(timeout=60)
