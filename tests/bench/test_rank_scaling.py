"""`bench scale` in small: local processes, Ray and torchrun give the same files and weights."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_engine_gives_the_same(tmp_path):
    options = ["--events", "10000", "--workers", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "recsys", "bench", "scale", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=580,
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
    assert result["peak_mib"] > 100
