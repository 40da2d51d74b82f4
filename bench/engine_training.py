"""A training as the scheduler starts it, by each engine: the same version, however many ranks made it.

One simulated log is copied into a database for each engine; there a scheduler of this process leads,
launches a requested retraining and waits for its end, as `python -m jobs` does.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.schedule import Scheduler
from recsys import pipeline
from recsys.config import load_settings
from recsys.demo.simulation import Shop, ShopSize
from recsys.errors import TrainingError
from recsys.events.times import from_us, to_us
from recsys.ingest.event_files import ReadOptions
from recsys.progress import Say, quiet
from recsys.registry.array_files import mapped_arrays
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, version_rows
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.entities.job_rows import RunRow
from recsys.storage.schema import migrate

SMALL = ShopSize(products=300, shoppers=600, events=12_000)
SETTINGS = """
[database]
url = "sqlite:///{folder}/shop.db"
[sequences]
max_length = 20
[model]
width = {width}
[training]
engine = "{engine}"
ranks = {ranks}
epochs = {epochs}
precision = "float32"
device = "cpu"
threads = 1
[evaluation]
bootstrap_draws = 100
[promotion]
min_positions = 50
[registry]
path = "{folder}/models"
[schedule]
retrain = "0 3 1 1 *"
refresh_minutes = 1440
poll_seconds = 0.1
nice = 0
"""
OURS = ("requested", "running")


@dataclass(frozen=True)
class ScheduledTraining:
    """How long a scheduled training took, the weights of its version, and the ranks its log tells of."""

    seconds: float
    weights: Mapping[str, np.ndarray]
    ranks: int


def compare_scheduled(
    engines: Sequence[str],
    size: ShopSize = SMALL,
    epochs: int = 3,
    width: int = 32,
    ranks: int = 2,
    say: Say = quiet,
) -> dict[str, dict[str, Any]]:
    """Retrain locally and by each of `engines`; how far any weight of their versions is from the local one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log = folder / "log.db"
        _import_shop(log, size)
        made = {}
        for engine in ("local", *engines):
            place = folder / engine
            place.mkdir()
            shutil.copy(log, place / "shop.db")
            config = place / "config.toml"
            config.write_text(
                SETTINGS.format(
                    folder=place, width=width, engine=engine, ranks=ranks, epochs=epochs
                )
            )
            made[engine] = scheduled_training(config)
            say(f"scheduled training, {engine}: {made[engine].seconds:.1f} s")
        return {
            engine: {"seconds": round(one.seconds, 1), "ranks": one.ranks}
            | _difference(made["local"], one)
            for engine, one in made.items()
        }


def scheduled_training(config: Path, limit_seconds: float = 600.0) -> ScheduledTraining:
    """Have a scheduler run a retraining. Raises TrainingError where it did not succeed."""
    settings = load_settings(config)
    database = Database(settings.database.url.get_secret_value())
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "retrain", CLI.name, to_us(datetime.now(UTC)))
    scheduler, started = Scheduler(settings, database, config), time.monotonic()
    try:
        while (run := _run(database, run_id)).state in OURS:
            scheduler.turn()
            if time.monotonic() - started > limit_seconds:
                raise TrainingError(f"the run did not end within {limit_seconds:g} seconds")
            time.sleep(0.05)
        seconds = time.monotonic() - started
    finally:
        scheduler.stop()
        scheduler.run()  # ends what is left, and lets the lease go
    if run.state != "succeeded":
        raise TrainingError(f"the scheduled training {run.state}: {run.error}")
    with database.connect() as connection:
        version = version_rows.list_versions(connection, 1)[0].version
        lines = [line["message"] for line in job_rows.get_lines(connection, run_id)]
    database.close()
    ranks = [int(line.split()[0]) for line in lines if line.endswith("share every batch")]
    weights = mapped_arrays(settings.registry.path / version / "network.safetensors")
    copied = {name: np.array(array) for name, array in weights.items()}
    return ScheduledTraining(seconds, copied, ranks[0] if ranks else 1)


def _import_shop(path: Path, size: ShopSize) -> None:
    end_us = to_us(datetime(2026, 1, 1, tzinfo=UTC))
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database)
    table = pa.concat_tables(Shop(size, 7, end_us).events())
    pq.write_table(table, path.with_suffix(".parquet"))
    pipeline.import_events(database, path.with_suffix(".parquet"), ReadOptions(), from_us(end_us))
    database.close()


def _run(database: Database, run_id: int) -> RunRow:
    with database.connect() as connection:
        return job_rows.get_run(connection, run_id)


def _difference(local: ScheduledTraining, other: ScheduledTraining) -> dict[str, Any]:
    if set(local.weights) != set(other.weights):
        raise TrainingError("the engines trained networks of different shapes")
    most = max(
        float(np.abs(local.weights[name] - other.weights[name]).max()) for name in local.weights
    )
    return {"largest_difference": most, "largest": round(_largest(local), 3)}


def _largest(one: ScheduledTraining) -> float:
    return max(float(np.abs(array).max()) for array in one.weights.values())
