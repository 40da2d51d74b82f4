"""Several ranks learn what one learns, and none goes on when one is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.models.lstm.process_group import TrainingGroup

SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
from pathlib import Path
import numpy as np
import torch
from test_resume import ROWS, log
from recsys.config import ModelSettings, TrainingSettings
from recsys.distributed.torchrun import with_ranks
from recsys.errors import TrainingError
from recsys.models.lstm.checkpoint import TrainingCheckpoint
from recsys.models.lstm.initial_weights import start_cold
from recsys.models.lstm.trainer import Trainer, final_pass, train_network

out, mode = Path(sys.argv[1]), sys.argv[2]
rank = int(os.environ.get("RANK", "0"))

def one(full, body, epochs, on_progress=lambda progress: None, checkpoint=None):
    training = TrainingSettings(
        epochs=epochs, batch_events=64, threads=1, negatives=16,
        full_softmax_items=10_000 if full else 1, precision="float32",
    )
    trainer = Trainer(ROWS, 3, 8, ModelSettings(width=12, network=body), training)
    sequences = log()
    start_cold(trainer, sequences)
    weights = (np.arange(sequences.event_count) % 3 > 0).astype(np.float32)
    curve = train_network(sequences, weights, trainer, None, on_progress, checkpoint=checkpoint)
    final_pass(sequences, weights, trainer, 1)
    return trainer, curve

def work():
    if mode == "equal":
        for full in (True, False):
            for body in ("lstm", "gru"):
                trainer, _ = one(full, body, 2)
                torch.save(trainer.network.state_dict(), out / f"{{full}}-{{body}}.pt")
        return
    seen = []
    def mark(progress):
        seen.append(progress.epoch)
        (out / "epoch").write_text(str(progress.epoch))
        time.sleep(0.02)
    trainer, curve = one(False, "lstm", 400 if mode == "lost" else 20, mark,
                         TrainingCheckpoint(out / "fit.bin", "key"))
    (out / "done").write_text(f"{{min(seen)}} {{len(curve.epochs)}}")

(out / f"pid-{{rank}}").write_text(str(os.getpid()))
try:
    with_ranks(work, float(sys.argv[3])) if "RANK" in os.environ else work()
except TrainingError as error:
    print("recsys:", error, file=sys.stderr)
    sys.exit(1)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "ranks.py"
    path.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    return path


def start(script, out, mode, ranks, port, timeout=100):
    """One process a rank, as a launcher on several machines would start them."""
    out.mkdir(exist_ok=True)
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    base = {**os.environ, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, str(script), str(out), mode, str(timeout)],
            env={**base, **there, "RANK": str(rank)} if ranks > 1 else base,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def ends(processes, seconds):
    found = [process.communicate(timeout=seconds) for process in processes]
    return [process.returncode for process in processes], [stderr for _, stderr in found]


def wait_for(path, seconds=150):
    end = time.monotonic() + seconds
    while not path.is_file() or not path.read_text():
        assert time.monotonic() < end, path.name
        time.sleep(0.05)
    return path.read_text()


@pytest.mark.slow
def test_ranks_learn_what_one_learns(script, tmp_path):
    started = []
    for ranks in (1, 2, 3):
        started += start(script, tmp_path / str(ranks), "equal", ranks, free_port())
    assert ends(started, 200)[0] == [0] * 6
    files = sorted((tmp_path / "1").glob("*.pt"))
    assert len(files) == 4
    for path in files:
        alone = torch.load(path)
        for ranks in (2, 3):
            together = torch.load(tmp_path / str(ranks) / path.name)
            for name in alone:
                np.testing.assert_allclose(alone[name], together[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "how",
    [
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("killed", "stopped")),
        "rank 0 killed",
    ],
)
def test_a_lost_rank_ends_the_training_on_all_and_it_goes_on_later(script, tmp_path, how):
    out = tmp_path / "out"
    processes = start(script, out, "lost", 2, free_port(), timeout=8)
    while int(wait_for(out / "epoch")) < 3:
        time.sleep(0.05)
    lost = 0 if how == "rank 0 killed" else 1
    processes[lost].send_signal(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
    left = processes[1 - lost]
    _, stderr = left.communicate(timeout=100)
    assert left.returncode == 1
    assert stderr.splitlines()[-1] == (
        "recsys: a process of the training was lost or fell silent; nothing was registered"
    )
    processes[lost].kill()
    processes[lost].communicate()
    assert not (out / "done").exists()
    if how != "killed":
        return
    again = start(script, out, "again", 2, free_port())
    assert ends(again, 150)[0] == [0, 0]
    first, epochs = map(int, (out / "done").read_text().split())
    assert first >= 3
    assert epochs == 20


def test_a_heart_goes_on_after_a_beat_that_failed():
    class Store:
        beats = 0

        def add(self, *_):
            self.beats += 1
            if self.beats == 3:
                group._stop.set()
            raise RuntimeError("away")

    group = TrainingGroup(Store(), 1, 2, 0.001)
    group._beat()
    assert group._store.beats == 3
