"""How long the README's commands take on a fresh clone: make timings TIMINGS=DIR TIMINGS_ARGS=--tests

Clones the last commit into an empty folder and times, one after the other and in seconds:

- `setup`: `make setup`, which installs everything;
- `demo_first_answer`: from `make demo` until the curl line that it prints is answered with items;
- `demo_again`: the same a second time, going on with that shop;
- `own_table_first_recommendation`: from an empty folder until `recsys recommend` answers from a table of
  one's own (a SQLite file of 20,000 simulated events): init, events check, train, recommend;
- `tests`, with --tests: `make test`.

Prints one JSON object; the figures are this machine's, with whatever else runs on it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 3_600
EVENTS = 20_000
# Simulated events as a table of one's own, written by the clone's own Python.
TABLE = """
import sqlite3, sys, time
from recsys.demo.simulation import Shop, ShopSize
shop = Shop(ShopSize(products=300, shoppers=1_500, events=int(sys.argv[2])), 7, int(time.time() * 1e6))
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute("CREATE TABLE clicks (id INTEGER PRIMARY KEY, customer TEXT, sku TEXT, seen_at INTEGER)")
    connection.execute("CREATE INDEX clicks_of_customers ON clicks (customer, seen_at)")
    for table in shop.events():
        rows = table.select(["user_id", "item_id", "timestamp_us"]).to_pylist()
        connection.executemany(
            "INSERT INTO clicks (customer, sku, seen_at) VALUES (:user_id, :item_id, :timestamp_us)", rows
        )
"""
OWN_TABLE = {
    "TABLE": "clicks",
    "USER_COLUMN": "customer",
    "ITEM_COLUMN": "sku",
    "TIMESTAMP_COLUMN": "seen_at",
    "ORDER_COLUMN": "id",
    "UNIT": "us",
}


class Clone:
    """A fresh clone, and the log that everything run there writes to."""

    def __init__(self, folder: Path, log: TextIO) -> None:
        self.folder, self.log = folder, log
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")}

    def run(self, *words: str, **more: str) -> float:
        """Seconds that a command takes. Raises CalledProcessError where it fails."""
        began = time.monotonic()
        subprocess.run(  # noqa: S603
            words,
            check=True,
            cwd=self.folder,
            env={**self.environment, **more},
            stdout=self.log,
            stderr=self.log,
        )
        return round(time.monotonic() - began, 1)

    def demo(self) -> float:
        """Seconds from `make demo` until its own curl line is answered with items; stopped after."""
        said = self.folder / "demo.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        began = time.monotonic()
        with said.open("w") as output:
            process = subprocess.Popen(  # noqa: S603
                ["make", "demo", f"DEMO_ARGS=--port {port}"],  # noqa: S607
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            until(lambda: process.poll() is not None or answered(said.read_text()), "make demo")
            if process.poll() is not None:
                raise SystemExit(f"make demo ended:\n{said.read_text()[-2_000:]}")
            return round(time.monotonic() - began, 1)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(timeout=60)

    def own_table(self) -> float:
        """Seconds from `recsys init` until a customer of the table is recommended something."""
        shop = self.folder / "var" / "own"
        shop.mkdir(parents=True)
        table = shop / "clicks.db"
        self.run(".venv/bin/python", "-c", TABLE, str(table), str(EVENTS))
        with sqlite3.connect(table) as connection:
            (customer,) = connection.execute("SELECT customer FROM clicks LIMIT 1").fetchone()
        keys = {f"RECSYS_EVENTS__{key}": value for key, value in OWN_TABLE.items()}
        keys["RECSYS_EVENTS__URL"] = f"sqlite:///{table}"
        keys["RECSYS_DATABASE__URL"] = f"sqlite:///{shop}/recsys.db"
        keys["RECSYS_REGISTRY__PATH"] = str(shop / "models")
        program = ".venv/bin/recsys"
        began = time.monotonic()
        self.run(program, "init", str(shop), **keys)
        for words in (["events", "check"], ["train"], ["recommend", customer, "-k", "5"]):
            self.run(program, *words, "--config", str(shop / "config.toml"), **keys)
        return round(time.monotonic() - began, 1)


def answered(said: str) -> bool:
    """Whether the curl line in `said` is answered with items."""
    found = re.search(r"^\s*(curl -s .*)$", said, re.M)
    if found is None:
        return False
    answer = subprocess.run(  # noqa: S603
        shlex.split(found[1]), check=False, capture_output=True, text=True, timeout=60
    )
    return '"items":[{' in answer.stdout.replace(" ", "")


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what} takes more than {WAIT_SECONDS} s")
        time.sleep(0.2)


def main() -> int:
    """Time everything; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="an empty or new folder, for the clone")
    parser.add_argument("--tests", action="store_true", help="time `make test` too")
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)]
    subprocess.run(clone, check=True)  # noqa: S603
    found: dict[str, float | int | None] = {"cores": os.cpu_count()}
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        made = Clone(folder, log)
        found["setup"] = made.run("make", "setup")
        found["demo_first_answer"] = made.demo()
        found["demo_again"] = made.demo()
        found["own_table_first_recommendation"] = made.own_table()
        if given.tests:
            found["tests"] = made.run("make", "test")
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
