"""Commands as a person types them, each in a folder and a database of its own."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from recsys.cli import main
from recsys.storage.engine.database import Database
from recsys.storage.schema import migrate

SMALL = {
    "RECSYS_MODEL__WIDTH": "16",
    "RECSYS_TRAINING__EPOCHS": "2",
    "RECSYS_TRAINING__BATCH_EVENTS": "128",
    "RECSYS_TRAINING__THREADS": "1",
    "RECSYS_EVALUATION__BOOTSTRAP_DRAWS": "100",
    "RECSYS_PROMOTION__MIN_POSITIONS": "50",
    "OMP_NUM_THREADS": "1",
}


class Shell:
    """`recsys …` in a folder with a database of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")},
            **SMALL,
            "RECSYS_DATABASE__URL": url,
            "RECSYS_REGISTRY__PATH": str(folder / "models"),
        }

    def run(self, *arguments: object, status: int = 0) -> str:
        """What a command prints; within this process, since each new one loads for seconds."""
        command = ["recsys", *map(str, arguments)]
        out, error, found = io.StringIO(), io.StringIO(), 0
        with (
            patch.dict(os.environ, self.environment, clear=True),
            patch.object(sys, "argv", command),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(error),
        ):
            try:
                main()
            except SystemExit as ended:
                found = int(ended.code or 0)
        return self._checked(found, out.getvalue(), error.getvalue(), status)

    def process(self, module: str, *arguments: object, status: int = 0) -> str:
        """The same in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        return self._checked(done.returncode, done.stdout, done.stderr, status)

    def _checked(self, found: int, out: str, error: str, status: int) -> str:
        assert found == status, out + error
        if status:
            assert "Traceback" not in error
            return error
        return out

    def json(self, *arguments: object) -> dict:
        return json.loads(self.run(*arguments, "--json").splitlines()[-1])

    def start(self, *arguments: object, module: str = "recsys") -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture
def shell(tmp_path, database_url):
    return Shell(tmp_path, database_url)


@pytest.fixture
def lone_shell(tmp_path):
    """For what does not depend on the kind of database."""
    url = f"sqlite:///{tmp_path}/recsys.db"
    database = Database(url)
    migrate.upgrade(database)
    database.close()
    return Shell(tmp_path, url)


@pytest.fixture
def log_file(tmp_path, tiny_shop):
    path = tmp_path / "clicks.parquet"
    pq.write_table(tiny_shop.events, path)
    return path


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_files(folder):
    """What in `folder` other users may read, write or look into."""
    return [str(path) for path in folder.rglob("*") if path.stat().st_mode & 0o077]


def wait_for(condition, seconds=240.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
