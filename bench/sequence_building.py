"""bench sequences: rows of a database -> sequence files; time, peak memory, and the raw read's rate.

The building process is a child, so that its peak is its own; an empty child is subtracted.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.import_speed import write_log
from recsys.config import Settings
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.sequence_store.store import SequenceStore
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_import import import_chunks
from recsys.storage.schema import migrate
from recsys.training.run import Run, peak_mib


def run_sequences(
    events: int,
    seed: int,
    now_us: int,
    postgresql_url: str | None = None,
    train: bool = False,
) -> dict[str, Any]:
    """Build sequence files from `events` simulated rows, then bring them up to date with 1% more.

    `train`: then learn one epoch from them, and see what memory of its own that takes.
    """
    with tempfile.TemporaryDirectory() as folder:
        url = postgresql_url or f"sqlite:///{folder}/bench.db"
        database = Database(url)
        if migrate.current(database) is not None:
            migrate.downgrade(database, "base")
        migrate.upgrade(database)
        _load(database, Path(folder), events, seed, now_us)
        base = _child("nothing", url, folder)
        raw = _child("read", url, folder)
        built = _child("update", url, folder)
        _load(database, Path(folder), max(1, events // 100), seed + 1, now_us)
        more = _child("update", url, folder)
        framed = _child("frame", url, folder)
        training = _child("train", url, folder) if train else None
        database.close()
    return {
        "events": built["events"],
        "seconds": built["seconds"],
        "events_per_second": round(built["events"] / built["seconds"]),
        "peak_mib": built["peak_mib"],
        "peak_worker_mib": built["peak_worker_mib"],
        "interpreter_mib": base["peak_mib"],
        "raw_read_seconds": raw["seconds"],
        "read_ratio": round(raw["seconds"] / built["seconds"], 3),
        "new_events": more["events"],
        "incremental_seconds": more["seconds"],
        "incremental_ratio": round(more["seconds"] / built["seconds"], 4),
        "sequences": framed["sequences"],
        "sequences_seconds": framed["seconds"],
        "sequences_peak_mib": framed["peak_mib"],
        "folder_mib": framed["folder_mib"],
        "training": training,
    }


def _load(database: Database, folder: Path, events: int, seed: int, now_us: int) -> None:
    path = folder / f"events-{seed}.parquet"
    write_log(path, events, seed, now_us)
    import_chunks(database, read_events(path, ReadOptions(), now_us), path.name, now_us)
    path.unlink()


def _child(what: str, url: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.sequence_building", what, url, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _work(what: str, url: str, folder: str) -> dict[str, Any]:
    import pandas  # noqa: F401 - loaded before the clock starts, as in a training

    from recsys.events.sequences import build_sequences
    from recsys.storage.entities.event_batches import STORE_COLUMNS, read_batches

    database, files = Database(url), Path(folder) / "sequences"
    started = time.perf_counter()
    result: dict[str, Any] = {}
    if what == "read":
        result["events"] = sum(
            b.num_rows for b in read_batches(database, STORE_COLUMNS, alone=True)
        )
    elif what == "update":
        result["events"] = SequenceStore(files).update(database).new_rows
    elif what == "frame":
        sequences = build_sequences(SequenceStore(files).frame(database), 1_800)
        result.update(events=sequences.event_count, sequences=len(sequences))
    elif what == "train":
        settings = Settings.model_validate(
            {"training": {"epochs": 1, "refit": False, "final_epochs": 0, "ranker_events": 500_000}}
        )
        result.update(train_once(settings, SequenceStore(files), database))
    result["seconds"] = round(time.perf_counter() - started, 3)
    return {**result, **costs(files)}


def costs(files: Path) -> dict[str, float]:
    """Peak memory of this process and of its largest child, and the size of the sequence files, MiB."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    sizes = [path.stat().st_size for path in files.rglob("*.npy")] if files.is_dir() else []
    return {
        "peak_mib": peak_mib(),
        "peak_worker_mib": round(children / 1024, 1),
        "folder_mib": round(sum(sizes) / 2**20, 1),
    }


def train_once(settings: Settings, store: SequenceStore, database: Database) -> dict[str, Any]:
    """One epoch over everything; anonymous memory is what cannot be given back to a file."""
    from recsys.training.event_log import make_log
    from recsys.training.fit import fit_model

    peak = _Anonymous()
    with peak:
        log = make_log(store.frame(database), settings)
        prepared_mib = peak.mib
        cut_us = int(log.sequences.timestamps_us.max())
        fitted = fit_model(log, settings, "bench", cut_us, Run(datetime.now(UTC)))
    sequences = log.sequences
    columns = ("items", "event_types", "timestamps_us", "session_starts")
    held = sum(getattr(sequences, name).nbytes for name in columns)
    return {
        "events": sequences.event_count,
        "sequences": len(sequences),
        "kept_in_files": sequences.folder is not None,
        "one_copy_mib": round(held / 2**20, 1),
        "anonymous_before_mib": peak.before_mib,
        "anonymous_prepared_mib": prepared_mib,
        "anonymous_peak_mib": peak.mib,
        "events_per_second": round(fitted.curve.events_per_second),
    }


class _Anonymous:
    """The largest anonymous memory of this process, looked at twenty times a second."""

    def __init__(self) -> None:
        self.before_mib = self.mib = anonymous_mib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.mib = max(self.mib, anonymous_mib())


def anonymous_mib() -> float:
    """Memory that this process holds now and that is no file's, in MiB; 0 where nobody tells."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return 0.0


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_work(*sys.argv[1:4])) + "\n")
