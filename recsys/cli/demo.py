"""recsys demo: a simulated shop, from its clickstream to recommendations, on SQLite and offline."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.terminal import (
    JsonOption,
    now,
    row_progress,
    say,
    set_up_logging,
    show,
    training_run,
)
from recsys.config import load_settings
from recsys.events.times import to_us

if TYPE_CHECKING:
    from recsys.demo.demo_run import Bustle, FinishedDemo

FOLDER = Path("var/demo")


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    serve: Annotated[bool, typer.Option(help="Keep serving at the end.")] = True,
    products: Annotated[int, typer.Option(min=30, max=100_000)] = 2_000,
    shoppers: Annotated[int, typer.Option(min=10, max=1_000_000)] = 10_000,
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000)] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the simulated shop.")] = 7,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to serve on; 0 = any free one.")
    ] = 8000,
    launch_seconds: Annotated[
        int, typer.Option(min=0, max=86_400, help="Seconds between new products; 0 = none.")
    ] = 20,
    visitors: Annotated[
        int,
        typer.Option(
            min=0, max=6_000, help="Simulated visitors a minute while it serves; 0 = none."
        ),
    ] = 240,
    folder: Annotated[Path, typer.Option(help="The folder for all files of the demo.")] = FOLDER,
    new: Annotated[
        bool, typer.Option("--new", help="Simulate and train again, whatever the folder holds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a shop, import its clicks, train, compare with an oracle, and serve.

    Example: recsys demo --no-serve --json
    """
    from recsys.demo import demo_run
    from recsys.demo.simulation import Shop, ShopSize
    from recsys.ingest.event_files import ReadOptions
    from recsys.pipeline import import_events
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.audit_rows import Actor

    host, chosen = "127.0.0.1", (products, shoppers, events, seed)
    bustle = demo_run.Bustle(launch_seconds, visitors)
    if serve:
        port = demo_run.free_port(host, port)
        found = None if new else demo_run.finished_demo(folder)
        if found and (found.products, found.shoppers, found.events, found.seed) == chosen:
            say(f"the demo in {folder} goes on (--new: simulate and train again)")
            _serve(demo_run.brought_back(folder, port), found, bustle, folder)
            return
    started = time.perf_counter()
    config = demo_run.prepare_folder(folder, port)
    settings = load_settings(config)
    set_up_logging(settings)
    moment, database = now(), open_database(settings)
    say(f"simulating a shop: {products:,} products, {shoppers:,} shoppers")
    shop = Shop(ShopSize(products, shoppers, events), seed, to_us(moment))
    log = folder / "events.parquet"
    demo_run.simulate(database, shop, log, moment)
    with row_progress(f"importing {log.name}") as on_progress:
        summary = import_events(database, log, ReadOptions(), moment, on_progress)
    say(f"imported {summary.accepted:,} events in {summary.seconds:.1f} s")
    with training_run(moment, Actor("demo", "cli")) as run:
        trained = demo_run.train_beside_oracle(settings, database, shop, summary.accepted, run)
    demo_run.count_figures(settings, database, now(), say)
    finished = demo_run.FinishedDemo(
        *chosen, to_us(moment), trained.example_user, demo_run.SIMULATION
    )
    finished.keep(folder)
    result = {**asdict(trained), "seconds": round(time.perf_counter() - started, 1)}
    table = result.pop("table")
    if not as_json or serve:
        say(table)
    if not serve:
        show(result, as_json, f"everything is in {folder}; took {result['seconds']} s")
        return
    _serve(config, finished, bustle, folder)


def _serve(config: Path, finished: FinishedDemo, bustle: Bustle, folder: Path) -> None:
    """Give out keys, say what there is to see, and serve until Ctrl-C."""
    from recsys.demo import demo_run
    from recsys.demo.demo_steering import steer
    from recsys.demo.visitors import Visitors, http_post
    from recsys.storage.engine.database import open_database

    settings = load_settings(config)
    set_up_logging(settings)
    with closing(open_database(settings)) as database:
        steer(database, to_us(now()))
    access = demo_run.give_access(settings, config, now())
    address = f"http://{settings.serving.host}:{settings.serving.port}"
    key, user = access.admin_key, finished.example_user
    say("")
    say(f"Shop      {address}/shop   (click a few products and watch the recommendations follow)")
    if bustle.launch_seconds:
        say(
            f"          every {bustle.launch_seconds} s a product is launched, and other visitors go to it from your last click"
        )
    say(f"Dashboard {address}/admin   (log in as admin with {access.password})")
    if bustle.visitors_a_minute:
        say(f"          {bustle.visitors_a_minute} simulated visitors a minute click and buy")
    say(f"REST      {address}/api/v1   (try it: {address}/docs)")
    say(f"API key   {key}")
    say("Try       a shopper's recommendations, which follow each event you post for them:")
    say(f"  curl -s -H 'X-API-Key: {key}' '{address}/api/v1/users/{user}/recommendations?k=5'")
    say("Stop with Ctrl-C.")
    shop = finished.shop()
    guests = Visitors(shop, http_post(settings.serving.port, key), finished.seed)
    demo_run.serve_until_stopped(config, shop, bustle, guests)
    say(f"Stopped. The same command goes on with what is in {folder}; --new begins again.")
