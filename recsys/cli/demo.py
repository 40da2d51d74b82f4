"""recsys demo: a simulated shop, from its clickstream to recommendations, on SQLite and offline."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.cli.common import (
    JsonOption,
    now,
    progress_bar,
    say,
    set_up_logging,
    show,
    training_bar,
)
from recsys.config import Settings, load_settings
from recsys.errors import RecsysError

FOLDER = Path("var/demo")
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

[training]
epochs = 6
final_epochs = 1

[evaluation]
max_positions = 10000

[promotion]
learn_window = false

[serving]
host = "127.0.0.1"
port = {port}

[auth]
collect_per_minute = 600

[logging]
level = "warning"
"""


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    serve: Annotated[bool, typer.Option(help="Go on serving at the end.")] = True,
    products: Annotated[int, typer.Option(min=30, max=100_000)] = 2_000,
    shoppers: Annotated[int, typer.Option(min=10, max=1_000_000)] = 10_000,
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000)] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Another shop.")] = 7,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to serve on.")] = 8000,
    folder: Annotated[Path, typer.Option(help="Where everything goes.")] = FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Simulate a shop, import its clicks, train, compare with an oracle, and serve.

    Example: recsys demo --no-serve --json
    """
    started = time.perf_counter()
    config = _fresh_folder(folder, port)
    settings = load_settings(config)
    set_up_logging(settings)
    result = _train(settings, folder, products, shoppers, events, seed)
    result["seconds"] = round(time.perf_counter() - started, 1)
    table = result.pop("table")
    if not as_json or serve:
        say(table)
    if not serve:
        show(result, as_json, f"everything is in {folder}; took {result['seconds']} s")
        return
    key = result_key(settings)
    open_shop(settings, config)
    user = result["example_user"]
    address = f"http://{settings.serving.host}:{settings.serving.port}"
    say("")
    say(f"Shop      {address}/shop   (click a few products and watch the row above them follow)")
    say(f"Dashboard {address}/admin   (log in as admin with {result_login(settings)})")
    say(f"REST      {address}/api/v1   (try it: {address}/docs)")
    say(f"API key   {key}")
    say("Try       a shopper's recommendations, which follow each event you post for them:")
    say(f"  curl -s -H 'X-API-Key: {key}' '{address}/api/v1/users/{user}/recommendations?k=5'")
    say("Stop with Ctrl-C.")
    _serve(config)


def result_key(settings: Settings) -> str:
    """A new admin key of the demo."""
    from recsys.commands import credentials
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.audit_rows import CLI

    return credentials.create_key(open_database(settings), CLI, "demo", ["admin"], (), to_us(now()))


def open_shop(settings: Settings, config: Path) -> None:
    """Give the shop's page a key of its own, by the demo's configuration."""
    from recsys.commands import credentials
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.audit_rows import CLI

    port = settings.serving.port
    origins = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
    key = credentials.create_key(
        open_database(settings), CLI, "storefront", ["collect"], origins, to_us(now())
    )
    text = config.read_text()
    config.write_text(text.replace("[serving]\n", f'[serving]\nstorefront_key = "{key}"\n'))


def result_login(settings: Settings) -> str:
    """The password of a new account of the demo, `admin`."""
    from recsys.commands import credentials
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.audit_rows import CLI
    from recsys.storage.entities.passwords import new_password

    password, database = new_password(), open_database(settings)
    credentials.create_account(database, CLI, "admin", password, "admin", to_us(now()))
    return password


def _fresh_folder(folder: Path, port: int) -> Path:
    """Only what a demo has made before is removed."""
    for name in ("recsys.db", "recsys.db-wal", "recsys.db-shm", "events.parquet", "items.jsonl"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "models", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder.resolve(), port=port))
    return config


def _train(
    settings: Settings, folder: Path, products: int, shoppers: int, events: int, seed: int
) -> dict[str, Any]:
    from recsys import pipeline
    from recsys.demo.simulation import Shop, ShopSize
    from recsys.events.export_files import writing
    from recsys.events.times import to_us
    from recsys.ingest.event_files import ReadOptions
    from recsys.ops import upkeep
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import item_rows
    from recsys.storage.entities.audit_rows import Actor
    from recsys.storage.schema import migrate

    moment = now()
    database = open_database(settings)
    migrate.upgrade(database)
    say(f"simulating a shop: {products:,} products, {shoppers:,} shoppers")
    shop = Shop(ShopSize(products, shoppers, events), seed, to_us(moment))
    log = folder / "events.parquet"
    with writing(log) as write:
        for table in shop.events():
            for batch in table.to_batches():
                write(batch)
    with database.begin() as connection:
        item_rows.put_items(connection, shop.items, to_us(moment))
    options = ReadOptions()
    with progress_bar(f"importing {log.name}", None) as (progress, task):
        summary = pipeline.import_events(
            database,
            log,
            options,
            moment,
            lambda stage, rows: progress.update(task, note=f"{stage} {rows:,}"),
        )
    say(f"imported {summary.accepted:,} events in {summary.seconds:.1f} s")
    with training_bar() as on_progress:
        trained = pipeline.train(
            settings,
            database,
            moment,
            actor=Actor("demo", "cli"),
            on_progress=on_progress,
            say=say,
            extra=lambda vocabulary: {
                "oracle": lambda histories: shop.oracle_scores(histories, vocabulary)
            },
        )
    if not trained.promoted:
        raise RecsysError(f"the demo's model was not promoted: {trained.verdict.reason}")
    upkeep.count_activity(settings, database, now())  # what the dashboard's charts show
    upkeep.report_quality(settings, database, now(), say)
    return {
        "events": summary.accepted,
        "users": shoppers,
        "items": products,
        "model_version": trained.version,
        "promoted": trained.promoted,
        "metrics": trained.trial.metrics,
        "positions": len(trained.trial.positions),
        "example_user": f"shopper-{0:0{max(6, len(str(shoppers)))}d}",
        "table": trained.trial.table(),
    }


def _serve(config: Path) -> None:
    """The scheduler and the service, until one of them ends or Ctrl-C."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    own = [sys.executable, "-m"]
    scheduler = subprocess.Popen([*own, "recsys", "schedule", "--config", str(config)])  # noqa: S603
    server = subprocess.Popen([*own, "recsys", "serve", "--config", str(config)])  # noqa: S603
    try:
        while server.poll() is None and scheduler.poll() is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        for process in (server, scheduler):
            process.terminate()
        for process in (server, scheduler):
            process.wait(timeout=60)
