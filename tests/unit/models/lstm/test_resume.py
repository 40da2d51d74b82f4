"""A training that is killed goes on after its last finished epoch, to the same weights."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.config import ModelSettings, TrainingSettings
from recsys.events.sequences import Sequences
from recsys.models.lstm.checkpoint import (
    TrainingCheckpoint,
    TrainingState,
)
from recsys.models.lstm.initial_weights import start_cold
from recsys.models.lstm.trainer import Trainer, train_network
from recsys.models.version_facts import EpochRecord, LearningCurve

ROWS = 40

# Run as a script with a path: trains, and dies by SIGKILL in the middle of the fourth epoch.
# torch's compiler, which nothing here uses, takes a second and 70 MB where it is loaded.
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_resume import train
def die(progress):
    if progress.epoch == 4 and "torch._dynamo" not in sys.modules:
        os.kill(os.getpid(), signal.SIGKILL)
train({full}, Path(sys.argv[1]), on_progress=die)
"""


def log() -> Sequences:
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 15, 80)
    events = int(lengths.sum())
    return Sequences(
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        items=rng.integers(2, ROWS, events).astype(np.int32),
        event_types=rng.integers(0, 3, events).astype(np.int16),
        timestamps_us=np.sort(rng.integers(1, 10**12, events)),
        session_starts=rng.random(events) < 0.2,
        keys=[f"u:{n}" for n in range(80)],
    )


def train(full, path, on_progress=lambda progress: None, validate=None):
    training = TrainingSettings(
        epochs=6,
        batch_events=64,
        threads=1,
        negatives=16,
        full_softmax_items=10_000 if full else 1,
        precision="float32",
    )
    trainer = Trainer(ROWS, 3, 8, ModelSettings(width=12, layers=2), training)
    sequences = log()
    start_cold(trainer, sequences)
    checkpoint = TrainingCheckpoint(path, "key") if path else None
    curve = train_network(
        sequences,
        np.ones(sequences.event_count, np.float32),
        trainer,
        validate,
        on_progress,
        checkpoint=checkpoint,
    )
    return trainer, curve


@pytest.mark.parametrize("full", [True, False])
def test_killed_and_gone_on_is_never_having_been_killed(full, tmp_path):
    path = tmp_path / "work" / "fit.bin"
    script = SCRIPT.format(folder=str(__file__.rpartition("/")[0]), full=full)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert path.is_file()
    epochs = []
    resumed, curve = train(full, path, on_progress=lambda at: epochs.append(at.epoch))
    assert min(epochs) == 4  # three were finished before
    assert [record.epoch for record in curve.epochs] == [1, 2, 3, 4, 5, 6]
    whole, other = train(full, None)
    assert [r.loss for r in curve.epochs] == [r.loss for r in other.epochs]
    ours, theirs = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_best_epoch_is_remembered_across_the_break(tmp_path):
    figures = {1: 0.1, 2: 0.9, 3: 0.3}
    seen = []

    class Killed(Exception):
        pass

    def first(_scorer):
        seen.append(len(seen) + 1)
        if seen[-1] == 4:
            raise Killed
        return figures[seen[-1]]

    with pytest.raises(Killed):
        train(False, tmp_path / "fit.bin", validate=first)
    _, curve = train(False, tmp_path / "fit.bin", validate=lambda scorer: 0.2)
    assert curve.best_epoch == 2
    assert [r.validation for r in curve.epochs] == [0.1, 0.9, 0.3, 0.2]  # patience ends it there


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other key"])
def test_a_damaged_or_foreign_state_is_started_over(damage, tmp_path):
    path = tmp_path / "fit.bin"
    checkpoint = TrainingCheckpoint(path, "key")
    curve = LearningCurve([EpochRecord(1, 0.5, None, 2.0, 10.0)], 1)
    state = TrainingState({"a": torch.ones(3)}, {"rng": [1, 2**100]}, 7, curve, -math.inf, {})
    checkpoint.save(state)
    loaded = checkpoint.load()
    assert torch.equal(loaded.tensors["a"], torch.ones(3))
    assert replace(loaded, tensors=state.tensors) == state
    data = bytearray(path.read_bytes())
    if damage == "other key":
        assert TrainingCheckpoint(path, "another").load() is None
        return
    if damage == "flip":
        data[-1] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:40]), "empty": b""}[damage])
    assert checkpoint.load() is None


def test_the_state_is_plain_json(tmp_path):
    trainer, _ = train(False, tmp_path / "fit.bin")
    _, plain = trainer.state()
    assert json.loads(json.dumps(plain)) == plain
