"""An installation of any release, used as everybody does: by `recsys`, over HTTP and by the configuration.

What is found then says something of that release and of no other.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from bench.load import answer, request_bytes
from bench.releases import Release
from bench.servers import SMALL, running

NONE: Mapping[str, str] = {}
ORIGIN = "https://shop.example"
SMALL_NETWORK = {
    f"RECSYS_{section}__{key}".upper(): str(value)
    for section, values in SMALL.items()
    for key, value in values.items()
}
UMASK = 0o022  # the usual one: a release has to care for its files itself


@dataclass(frozen=True)
class Ran:
    """How a command ended, what it wrote, and the most memory it held, in MiB."""

    status: int
    out: str
    error: str
    peak_mib: float

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object of its last line; empty where there is none."""
        lines = self.out.strip().splitlines()
        return dict(orjson.loads(lines[-1])) if lines and lines[-1].startswith("{") else {}


@dataclass(frozen=True)
class Installation:
    """A release's folder after `recsys init`: its database, its models, and who may do what."""

    release: Release
    folder: Path
    url: str
    admin_key: str
    admin_password: str
    page_key: str = ""
    training: Mapping[str, str] = field(default_factory=lambda: SMALL_NETWORK)  # settings

    def recsys(self, *words: str) -> Ran:
        """One command; what it trains is as `training` has it."""
        with (
            open(self.folder / "out.txt", "wb") as out,
            open(self.folder / "error.txt", "wb") as error,
        ):
            process = subprocess.Popen(
                [*self.release.command, *words],
                env=self._environment(self.training),
                cwd=self.folder,
                stdout=out,
                stderr=error,
                umask=UMASK,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        written = [(self.folder / name).read_text() for name in ("out.txt", "error.txt")]
        return Ran(process.returncode, written[0], written[1], round(usage.ru_maxrss / 1_024, 1))

    def done(self, *words: str) -> dict[str, Any]:
        """What a command that has to succeed tells with --json. Raises RuntimeError where it fails."""
        ran = self.recsys(*words, "--json")
        if ran.status != 0:
            raise RuntimeError(f"recsys {' '.join(words)}: {ran.error[-2_000:]}")
        return ran.told

    @contextmanager
    def serving(
        self, more: Mapping[str, str] = NONE, *, workers: int = 1
    ) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
        """`recsys serve`: its port and process; what it writes is in serve.txt."""
        command = [*self.release.command, "serve"]
        models = self.folder / "var" / "models"
        models.mkdir(parents=True, exist_ok=True)
        chosen = {**self._known(more), "PYTHONPATH": self.release.python_path}
        log = str(self.folder / "serve.txt")
        with running(
            self.url, models, workers=workers, command=command, log=log, **chosen
        ) as served:
            yield served

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """`more`: settings by their names in the environment."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")},
            "PYTHONPATH": self.release.python_path,
            "RECSYS_DATABASE__URL": self.url,
            "OMP_NUM_THREADS": "1",
            **self._known(more),
        }

    def _known(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Those that this release has: each refuses to start with a setting that it does not know."""
        config = self.folder / "config.toml"
        text = config.read_text() if config.exists() else ""
        return {
            name: value
            for name, value in settings.items()
            if f"\n{name.rpartition('__')[2].lower()} = " in text
        }

    @contextmanager
    def scheduling(self, more: Mapping[str, str] = NONE) -> Iterator[None]:
        """`recsys schedule`, killed at the end."""
        quiet = subprocess.DEVNULL
        command = [*self.release.command, "schedule"]
        with subprocess.Popen(
            command, env=self._environment(more), cwd=self.folder, stdout=quiet, stderr=quiet
        ) as process:
            try:
                yield
            finally:
                process.terminate()
                process.wait(60)

    def asks(self, path: str, body: Any = None) -> bytes:
        """A request with the admin key."""
        return _request(path, self.admin_key, body)

    def page_asks(self, path: str, body: Any = None) -> bytes:
        """A request of a page, with the key that stands in it for everybody to read."""
        request = _request(path, self.page_key, body)
        return request.replace(b"Host: x\r\n", f"Host: x\r\nOrigin: {ORIGIN}\r\n".encode(), 1)

    @property
    def with_sequence(self) -> bytes:
        """A read that carries its own sequence, so that it needs no database."""
        events = [{"item_id": f"P{number:04d}"} for number in (1, 2, 3)]
        return self.asks("/recommendations", {"events": events, "k": 5})

    def refreshed(self, port: int, more: Mapping[str, str] = NONE) -> None:
        """Have the job `refresh` run once, as the scheduler does every five minutes."""
        with self.scheduling(more):
            status, run = answer(port, self.asks("/jobs/refresh/run", {}))
            if status != 202:
                raise RuntimeError(f"refresh was not queued: {status} {run}")
            end = time.monotonic() + 120
            while time.monotonic() < end:
                _, found = answer(port, self.asks(f"/jobs/runs/{run['run_id']}"))
                if found["state"] == "succeeded":
                    return
                time.sleep(0.2)
        raise RuntimeError(f"refresh did not end: {found}")

    def champion(self, port: int) -> str:
        """The version that serves."""
        _, found = answer(port, self.asks("/models"))
        return next(str(one["version"]) for one in found["models"] if one["champion"])

    def rows_with(self, text: str) -> dict[str, int]:
        """Rows of its SQLite file that contain `text`, by their table."""
        with closing(sqlite3.connect(self.folder / "var" / "recsys.db")) as file:
            found = Counter(
                line.split('"')[1]
                for line in file.iterdump()
                if line.startswith("INSERT INTO") and text in line
            )
        return dict(found)

    def copied(self, folder: Path) -> Installation:
        """The same with a folder and a SQLite file of its own."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder, url=_sqlite(folder))


def install(release: Release, folder: Path, url: str | None = None) -> Installation:
    """`recsys init` in `folder`; over SQLite unless an address is given."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Installation(release, folder, url or _sqlite(folder), "", "")
    told = made.done("init")
    return replace(made, admin_key=told["admin_key"], admin_password=told["admin_password"])


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/var/recsys.db"


def _request(path: str, key: str, body: Any) -> bytes:
    return request_bytes(f"/api/v1{path}", key, None if body is None else orjson.dumps(body))
