"""Files that a release writes and reads: for whom they are, what they hold, what they come to."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.drills.fault_stage import Fault, ask
from bench.installations import Installation

INFLATED_MIB = 600.0
ROWS, LENGTH = 12_000, 50_000  # texts of 50 kB, all the same: 570 MiB once each is written out
C1_TEXT = "\x9b31mred"  # a control sequence of one character: a terminal writes the rest in red
FORMULA = '=HYPERLINK("https://evil.example")'


def open_files(place: Installation) -> Fault:
    """What others on the machine may read of the service's own files, under the usual umask."""
    place.done("events", "export", "export.csv")
    place.done("backup", "backup.zip")
    var = place.folder / "var"
    files = [path for path in var.rglob("*") if path.is_file()]
    files += [place.folder / "export.csv", place.folder / "backup.zip"]
    readable = [path for path in files if _readable(path)]
    figures = {"files": len(files), "readable_by_others": len(readable)}
    return Fault("files under umask 022", not readable, figures)


def _readable(path: Path) -> bool:
    """Whether others may read a file: it is open to them, and so is its folder."""
    return bool(path.stat().st_mode & 0o044 and path.parent.stat().st_mode & 0o055)


def inflated_file(place: Installation) -> Fault:
    """A small Parquet file of one long text, many times."""
    path = place.folder / "bomb.parquet"
    texts = pa.DictionaryArray.from_arrays(
        pa.array([0] * ROWS, pa.int32()), pa.array(["x" * LENGTH])
    )
    columns = {
        "user_id": pa.array(["u"] * ROWS),
        "item_id": texts,
        "timestamp": pa.array([1_700_000_000_000] * ROWS),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")
    ran = place.recsys("events", "import", path.name, "--unit", "ms", "--json")
    told = ran.error.strip().splitlines()
    figures = {
        "file_kib": round(path.stat().st_size / 1_024, 1),
        "peak_mib": ran.peak_mib,
        "status": ran.status,
        "told": told[-1][-200:] if told else "",
    }
    return Fault("a small Parquet file that inflates", ran.peak_mib < INFLATED_MIB, figures)


def texts_that_act(place: Installation) -> Fault:
    """An id that a spreadsheet would calculate, and a quarantined text that would steer a terminal."""
    with place.serving() as (port, _):
        ask(port, place.asks("/events", {"user_id": FORMULA, "item_id": "P0001"}))
    place.done("events", "export", "export.csv")
    lines = (place.folder / "export.csv").read_text().splitlines()
    formulas = sum(cell.lstrip('"').startswith("=") for line in lines for cell in line.split(","))
    log = place.folder / "odd.csv"
    good = "u,P0001,2026-01-01T00:00:00Z"
    log.write_text(f"user_id,item_id,timestamp\n{good}\nu,{C1_TEXT},no time\n")
    place.done("events", "import", log.name)
    controls = sum("\x80" <= one <= "\x9f" for one in place.recsys("events", "rejected").out)
    figures = {"formulas_exported": formulas, "control_characters_printed": controls}
    return Fault("texts that act where they are shown", not (formulas or controls), figures)
