"""`torchrun … recsys train`: several processes, one version; where one is lost, none."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.ingest.event_files import ReadOptions
from recsys.storage.entities import version_rows

NOW = datetime(2025, 3, 1, tzinfo=UTC)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SETTINGS = {
    "SEQUENCES__MAX_LENGTH": "20",
    "MODEL__WIDTH": "16",
    "TRAINING__BATCH_EVENTS": "128",
    "TRAINING__WORKER_TIMEOUT_SECONDS": "20",
    "EVALUATION__BOOTSTRAP_DRAWS": "100",
    "PROMOTION__MIN_POSITIONS": "50",
}
LONG = {"TRAINING__EPOCHS": "500", "TRAINING__PATIENCE": "500"}
RAY = [sys.executable, "-m", "recsys", "train", "--engine", "ray", "--engine-workers", "2"]


@pytest.fixture
def environment(database, database_url, tiny_shop, tmp_path):
    pq.write_table(tiny_shop.events, tmp_path / "events.parquet")
    pipeline.import_events(database, tmp_path / "events.parquet", ReadOptions(), NOW)
    return {
        **os.environ,
        **{f"RECSYS_{name}": value for name, value in SETTINGS.items()},
        "RECSYS_DATABASE__URL": database_url,
        "RECSYS_REGISTRY__PATH": str(tmp_path / "models"),
        "OMP_NUM_THREADS": "1",
    }


def run(environment, folder, command=(*TORCHRUN, "-m", "recsys", "train", "--json"), **more):
    return subprocess.Popen(
        command,
        env={**environment, **{f"RECSYS_{name}": value for name, value in more.items()}},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def versions(database):
    with database.connect() as connection:
        return version_rows.list_versions(connection, 10)


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_two_ranks_publish_one_version(environment, database, tmp_path):
    process = run(environment, tmp_path, TRAINING__EPOCHS="2")
    stdout, stderr = process.communicate(timeout=250)
    assert process.returncode == 0, stderr
    lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    assert [row.version for row in versions(database)] == [lines[0]["version"]]
    assert len(lines) == 1
    assert lines[0]["metrics"]["lstm"]["mrr@20"] > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_killed_rank_registers_nothing(environment, database, tmp_path):
    process = run(environment, tmp_path, **LONG)
    wait_until_it_learns(process, tmp_path)
    os.kill(rank_pid(process.pid, "1"), signal.SIGKILL)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 1
    told = "recsys: a process of the training was lost or fell silent; nothing was registered"
    assert told in stderr or "Signal 9 (SIGKILL)" in stderr
    assert versions(database) == []


@pytest.mark.slow  # two clusters are started, and one has a minute to end by itself
@pytest.mark.timeout(400)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_killed_worker_of_ray_registers_nothing_nor_does_a_killed_driver(
    environment, database, tmp_path
):
    process = run(environment, tmp_path, RAY, **LONG)
    wait_until_it_learns(process, tmp_path)
    os.kill(descendants(process.pid, b"ray::_be_rank")[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("recsys: ") and "Traceback" not in stderr
    assert versions(database) == []

    (tmp_path / "models" / ".training" / "fit.bin").unlink(missing_ok=True)
    process = run(environment, tmp_path, RAY, **LONG)
    wait_until_it_learns(process, tmp_path)
    family = [*descendants(process.pid, b"ray::_be_rank"), *descendants(process.pid, b"raylet")]
    assert len(family) > 2
    process.kill()
    process.communicate(timeout=30)
    end = time.monotonic() + 60
    while any(alive(pid) for pid in family):  # two agents of Ray's own go a minute later
        assert time.monotonic() < end, "processes of the cluster are left"
        time.sleep(0.2)
    assert versions(database) == []


def wait_until_it_learns(process, folder):
    checkpoint = folder / "models" / ".training" / "fit.bin"
    end = time.monotonic() + 150
    while not checkpoint.is_file():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


def descendants(pid, word=b""):
    """Processes below `pid` whose command line holds `word`."""
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                queue.append(child)
                if word in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def rank_pid(launcher: int, rank: str) -> int:
    """The launcher's child that was given this rank."""
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(pid)
    raise AssertionError("no such rank")
