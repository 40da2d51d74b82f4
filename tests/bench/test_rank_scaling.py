"""`bench scale` in small: local processes, Ray and torchrun give the same files and weights."""

import json
import os
import subprocess
import sys

import pytest

from bench.engine_training import compare_scheduled
from recsys.demo.simulation import ShopSize


@pytest.mark.slow
def test_a_scheduled_training_under_torchrun_makes_the_version_of_a_local_one():
    tiny = ShopSize(products=40, shoppers=60, events=1_500)
    found = compare_scheduled(["torchrun"], tiny, epochs=1, width=8)
    assert list(found) == ["local", "torchrun"]
    assert found["torchrun"]["ranks"] == 2
    assert found["torchrun"]["largest_difference"] <= 1e-4 < found["local"]["largest"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_engine_gives_the_same(tmp_path):
    options = ["--events", "10000", "--workers", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "recsys", "bench", "scale", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    result = json.loads(done.stdout.splitlines()[-1])
    engines = result["engines"]
    assert set(engines) == {"local", "ray", "torchrun"}
    for name, engine in engines.items():
        assert engine["identical"] is True, (name, engine)
        assert engine["events_per_second"] > 0
    assert engines["local"]["sha256"] == engines["ray"]["sha256"]
    assert [run["workers"] for run in engines["ray"]["runs"]] == [2]
    assert engines["ray"]["training"]["identical"] is True
    assert engines["torchrun"]["largest_difference"] < 1e-4
    for engine in engines.values():
        assert engine["scheduled"]["identical"] is True
        assert engine["scheduled"]["largest_difference"] <= 1e-4 < engine["scheduled"]["largest"]
    assert result["peak_mib"] > 100
