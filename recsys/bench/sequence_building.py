"""bench sequences: rows of a database -> index arrays; time, peak memory, and the raw read's rate.

The building process is a child, so that its peak is its own; an empty child is subtracted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recsys.bench.ingest import write_log
from recsys.data.readers import ReadOptions, read_events
from recsys.engines.memory import peak_mib
from recsys.storage import migrate
from recsys.storage.database import Database
from recsys.storage.event_import import import_chunks


def run_sequences(events: int, seed: int, now_us: int) -> dict[str, Any]:
    """Build sequences from `events` simulated rows in SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        write_log(path, events, seed, now_us)
        url = f"sqlite:///{folder}/bench.db"
        database = Database(url)
        migrate.upgrade(database)
        import_chunks(database, read_events(path, ReadOptions(), now_us), path.name, now_us)
        database.close()
        base = _child("nothing", url)
        raw = _child("read", url)
        built = _child("build", url)
    return {
        "events": built["events"],
        "sequences": built["sequences"],
        "seconds": built["seconds"],
        "peak_mib": built["peak_mib"],
        "interpreter_mib": base["peak_mib"],
        "above_interpreter_mib": round(built["peak_mib"] - base["peak_mib"], 1),
        "read_ratio": round(raw["seconds"] / built["seconds"], 3),
        "incremental_ratio": None,
    }


def _child(what: str, url: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "recsys.bench.sequence_building", what, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _work(what: str, url: str) -> dict[str, Any]:
    from recsys.data.sequences import build_sequences
    from recsys.storage.event_reading import SEQUENCE_COLUMNS, read_batches, read_frame

    database = Database(url)
    started = time.perf_counter()
    result: dict[str, Any] = {}
    if what == "read":
        result["events"] = sum(b.num_rows for b in read_batches(database, SEQUENCE_COLUMNS))
    elif what == "build":
        sequences = build_sequences(read_frame(database), 1_800)
        result.update(events=sequences.event_count, sequences=len(sequences))
    result["seconds"] = round(time.perf_counter() - started, 3)
    result["peak_mib"] = peak_mib()
    return result


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_work(sys.argv[1], sys.argv[2])) + "\n")
