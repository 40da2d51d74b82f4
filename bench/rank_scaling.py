"""bench scale: the same files and the same weights, however many workers make them, and where.

Files: one database is built into sequence files by 1, 2 and 4 processes, then by as many Ray tasks;
every file of every build must be equal to the byte. Weights: one training in one process, then by two
ranks of torchrun and by two of which one is a task of Ray over the same batches; the largest difference of any
weight must stay below TOLERANCE. Scheduled trainings: a retraining that a scheduler launches, locally and
by each engine, must give the same version within the same tolerance.

`python -m bench.rank_scaling OUT EVENTS` is one such rank.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine_training import compare_scheduled
from bench.import_speed import write_log
from bench.training_speed import simulated_sequences
from recsys.config import ModelSettings, TrainingSettings, started_by_torchrun
from recsys.distributed.ray_cluster import RayCluster, connected
from recsys.distributed.torchrun import with_ranks
from recsys.errors import TrainingError
from recsys.events.vocabulary import FIRST_ITEM
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.models.lstm.initial_weights import start_cold
from recsys.models.lstm.trainer import Trainer, train_network
from recsys.models.lstm.weights import network_bytes
from recsys.progress import Say, quiet
from recsys.registry.array_files import mapped_arrays
from recsys.sequence_store.store import CHUNK_IDS, ReadRanges, SequenceStore
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_import import import_chunks
from recsys.storage.schema import migrate
from recsys.training.run import peak_mib

ENGINES = ("local", "ray", "torchrun")
TOLERANCE = 1e-4
RANKS = 2
ITEMS = 5_000
TRAINED_EVENTS = 200_000  # at most: an epoch of them, at 1,024 a batch
MAX_LENGTH = 20
TIMEOUT_SECONDS = 120.0


def run_scale(
    events: int,
    engines: Sequence[str],
    workers: Sequence[int],
    seed: int,
    now_us: int,
    postgresql_url: str | None = None,
    say: Say = quiet,
) -> dict[str, Any]:
    """Build and train by each of `engines`; see this module's text."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        database = Database(postgresql_url or f"sqlite:///{folder}/bench.db")
        if migrate.current(database) is not None:
            migrate.downgrade(database, "base")
        migrate.upgrade(database)
        path = folder / "events.parquet"
        write_log(path, events, seed, now_us)
        import_chunks(database, read_events(path, ReadOptions(), now_us), path.name, now_us)
        say(f"{events:,} events imported")
        # Some ranges a worker at any size, and never more in memory than a training would hold.
        chunk = min(CHUNK_IDS, -(-events // 8))
        trained = min(events, TRAINED_EVENTS)
        alone = folder / "alone"
        if "torchrun" in engines or "ray" in engines:
            seconds = _timed(lambda: _rank_process(alone, trained, ranks=1))
            say(f"one rank: {seconds:.1f} s")
        if "local" in engines:
            found["local"] = _built(database, folder, chunk, workers, say, "local")
        if "ray" in engines:
            with connected("", max(*workers, RANKS)) as cluster:
                found["ray"] = _built(database, folder, chunk, workers, say, "ray", cluster)
                with cluster.ranks(TrainingSettings(engine="ray", ranks=RANKS)):
                    train_some(folder / "ray", trained)
            found["ray"]["training"] = _compared(alone, folder / "ray")
            if "local" in found:
                same = found["ray"]["sha256"] == found["local"]["sha256"]
                found["ray"]["identical"] = found["ray"]["identical"] and same
        if "torchrun" in engines:
            _rank_process(folder / "torchrun", trained, ranks=RANKS)
            found["torchrun"] = _compared(alone, folder / "torchrun")
        database.close()
    asked = [engine for engine in engines if engine != "local"]
    for engine, one in (compare_scheduled(asked, say=say) if asked else {}).items():
        same = one["largest_difference"] <= TOLERANCE
        found.setdefault(engine, {})["scheduled"] = {**one, "identical": same}
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "events": events,
        "engines": found,
        "peak_mib": round(max(peak_mib(), children), 1),
        "cpus": os.cpu_count(),
    }


def _built(
    database: Database,
    folder: Path,
    chunk: int,
    workers: Sequence[int],
    say: Say,
    name: str,
    cluster: RayCluster | None = None,
) -> dict[str, Any]:
    """The files by each number of workers: rates, and whether all are equal."""
    runs, digests = [], set()
    for count in workers:
        files = folder / f"{name}-{count}"
        read_ranges: ReadRanges | None = cluster.with_workers(count).results if cluster else None
        store = SequenceStore(files, count, read_ranges=read_ranges, chunk_ids=chunk)
        done = store.update(database)
        rate = round(done.rows / done.seconds)
        digests.add(_digest(files))
        runs.append({"workers": count, "events_per_second": rate})
        say(f"{name}, {count} workers: {rate:,} events/s")
    return {
        "events_per_second": max(run["events_per_second"] for run in runs),
        "identical": len(digests) == 1,
        "sha256": min(digests),
        "runs": runs,
    }


def _digest(folder: Path) -> str:
    """Of the names and contents of all files but the lock."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "lock":
            digest.update(str(path.relative_to(folder)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def train_some(out: Path, events: int) -> dict[str, Any]:
    """An epoch over simulated sessions; the weights go to the folder `out`."""
    settings = TrainingSettings(epochs=1, precision="float32", device="cpu", threads=1)
    trainer = Trainer(ITEMS + FIRST_ITEM, 2, MAX_LENGTH, ModelSettings(), settings)
    sequences = simulated_sequences(events, ITEMS, settings.seed)
    start_cold(trainer, sequences)
    curve = train_network(sequences, np.ones(sequences.event_count, np.float32), trainer, None)
    facts = {"events_per_second": round(curve.events_per_second), "loss": curve.epochs[0].loss}
    out.mkdir(parents=True, exist_ok=True)
    (out / "weights.safetensors").write_bytes(network_bytes(trainer.network))
    (out / "facts.json").write_text(json.dumps(facts))
    return facts


def _compared(alone: Path, out: Path) -> dict[str, Any]:
    """How a training by several ranks differs from that by one."""
    ours, theirs = (mapped_arrays(one / "weights.safetensors") for one in (alone, out))
    most = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
    one, many = (json.loads((one / "facts.json").read_text()) for one in (alone, out))
    return {
        "events_per_second": many["events_per_second"],
        "identical": most <= TOLERANCE,
        "largest_difference": most,
        "ranks": RANKS,
        "one_rank_events_per_second": one["events_per_second"],
    }


def _rank_process(out: Path, events: int, ranks: int) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(launcher if ranks > 1 else []), "-m", "bench.rank_scaling"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(out), str(events)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise TrainingError(f"a rank failed: {done.stderr.strip().splitlines()[-1:]}")


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    work = partial(train_some, Path(sys.argv[1]), int(sys.argv[2]))
    if started_by_torchrun():
        with_ranks(work, TIMEOUT_SECONDS)
    else:
        work()


if __name__ == "__main__":
    main()
