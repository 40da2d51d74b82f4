"""What a plan multiplies, measured on this machine: a small simulated shop through every stage.

It takes about a minute on two idle cores. The figures are kept in a file; a plan of this machine uses it
from then on.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from recsys import pipeline
from recsys.config import Settings
from recsys.demo.demo_run import simulate
from recsys.demo.simulation import Shop, ShopSize
from recsys.errors import InputError, RecsysError
from recsys.events.times import to_us
from recsys.ingest.event_files import ReadOptions
from recsys.models.lstm.item_matrix import ItemMatrix
from recsys.ops.capacity import FILE_EVENT_BYTES, Costs
from recsys.progress import Say
from recsys.sequence_store.training_window import open_store
from recsys.storage.engine.database import Database
from recsys.training.run import Run
from recsys.web.app import create_app

FIGURES = "plan.json"
SIZE = ShopSize(products=1_000, shoppers=1_000, events=12_000)
SCANNED_ITEMS = 200_000
ANSWERS, POSTS, SCANS = 200, 200, 20


def figures_path(settings: Settings) -> Path:
    """Where the figures of this machine are kept: beside the registry."""
    return settings.registry.path.parent / FIGURES


def kept_costs(settings: Settings) -> Costs | None:
    """The figures that were measured here; None where nobody did. Raises InputError where the file
    holds none.
    """
    path = figures_path(settings)
    try:
        found = orjson.loads(path.read_bytes())
        if set(found) == {one.name for one in fields(Costs)}:
            return Costs(**found)
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError, TypeError):
        pass
    raise InputError(path.name, path.name, "expected what `recsys plan --measure` writes")


def measure(settings: Settings, size: ShopSize, now: datetime, say: Say) -> Costs:
    """Measure this machine with the model and training that `settings` have; keep the figures."""
    with tempfile.TemporaryDirectory() as temporary:
        costs = _measured(_own(settings, Path(temporary)), Path(temporary), size, now, say)
    path = figures_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(asdict(costs)))
    return costs


def _own(settings: Settings, folder: Path) -> Settings:
    """`settings` on a database and a registry of their own, without keys and on this machine alone."""
    changes: dict[str, Any] = {
        "database": {"url": f"sqlite:///{folder}/plan.db"},
        "registry": {"path": folder / "models"},
        "auth": {"enabled": False},
        "evaluation": {"bootstrap_draws": 100, "max_positions": 500},
        "training": {
            **settings.training.model_dump(),
            "engine": "local",
            "engine_address": "",
            "epochs": 2,
            "refit": False,
            "final_epochs": 0,
            "full_softmax_items": 1,  # the loss is that of a large catalogue
        },
        "model": settings.model.model_dump(),
        "promotion": {"learn_window": False, "min_positions": 50},
        "sequences": {"max_length": settings.sequences.max_length},
    }
    return Settings.model_validate(changes)


def _measured(settings: Settings, folder: Path, size: ShopSize, now: datetime, say: Say) -> Costs:
    shop, database = Shop(size, 7, to_us(now)), Database(f"sqlite:///{folder}/plan.db")
    with closing(database):
        log = folder / "events.parquet"
        simulate(database, shop, log, now)
        empty = _bytes(folder, "plan.db")
        events = 0

        def import_log() -> None:
            nonlocal events
            options = ReadOptions()
            events = pipeline.import_events(database, log, options, now).accepted

        import_seconds = _seconds(import_log)
        event_bytes = (_bytes(folder, "plan.db") - empty) / events
        say(f"import: {events / import_seconds:,.0f} events/s")
        store = open_store(settings, database)
        file_seconds = _seconds(lambda: store.update(database))
        say(f"sequence files: {events / file_seconds:,.0f} events/s")
        # No live blend: choosing one takes longer than all that is measured.
        still = settings.model_copy(
            update={"serving": settings.serving.model_copy(update={"live_seconds": 0.0})}
        )
        trained = pipeline.train(still, database, Run(now), force=True)
        curve = trained.facts.learning_curve
        if curve is None:
            raise RecsysError("the training that was to be timed learned nothing")
        say(f"training: {curve.events_per_second:,.0f} events/s a pass")
        item_ns = _item_ns(settings.model.width)
        app = create_app(settings, database)
        try:
            client, users = app.test_client(), [f"shopper-{n:06d}" for n in range(size.shoppers)]
            item_id = shop.items[0].item_id

            def answer(number: int) -> None:
                user = users[number % len(users)]
                _expect(client.get(f"/api/v1/users/{user}/recommendations"))

            def post(number: int) -> None:
                body = {"user_id": users[number % len(users)], "item_id": item_id}
                _expect(client.post("/api/v1/events", json=body))

            answer_ms = _processor_ms(answer, ANSWERS) - size.products * item_ns / 1e6
            post_ms = _processor_ms(post, POSTS)
        finally:
            app.extensions["recsys"].close()
        say(f"an answer: {answer_ms:.2f} ms and {item_ns:.1f} ns an item; a post: {post_ms:.2f} ms")
    return Costs(
        source=f"measured on this machine, {now:%Y-%m-%d %H:%M} UTC, SQLite",
        cores=os.cpu_count() or 1,
        training_events=curve.events_per_second,
        file_events=events / file_seconds,
        import_events=events / import_seconds,
        answer_ms=max(answer_ms, 0.0),
        item_ns=item_ns,
        post_ms=post_ms,
        event_bytes=max(event_bytes, FILE_EVENT_BYTES),
    )


def _item_ns(width: int) -> float:
    """Nanoseconds of a core for each item of a scan."""
    rng = np.random.default_rng(7)
    table = rng.standard_normal((SCANNED_ITEMS, width), np.float32)
    matrix = ItemMatrix(table, np.zeros(SCANNED_ITEMS, np.float32), "int8")
    out, state = np.empty(SCANNED_ITEMS, np.float32), table[0].copy()
    return _processor_ms(lambda number: matrix.scan(state, out), SCANS) * 1e6 / SCANNED_ITEMS


def _processor_ms(work: Callable[[int], None], times: int) -> float:
    """Milliseconds of processor time of each call, once it is warm; all threads of this process."""
    for number in range(times, times + max(2, times // 10)):
        work(number)  # of other users than those that count: a second answer costs less
    started = time.process_time()
    for number in range(times):
        work(number)
    return (time.process_time() - started) * 1e3 / times


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return max(time.perf_counter() - started, 1e-6)


def _expect(response: Any) -> None:
    if response.status_code != 200:
        raise RecsysError(f"a request of the measurement was answered {response.status_code}")


def _bytes(folder: Path, name: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{name}*"))
