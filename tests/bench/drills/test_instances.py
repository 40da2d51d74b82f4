"""Three instances without a shared disk and two schedulers; one of each dies under load."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_and_nothing_runs_twice(empty_url, tmp_path):
    if empty_url.startswith("sqlite"):
        pytest.skip("several machines share a PostgreSQL")
    command = ["bench", "instances", "--seconds", "10", "--postgresql", empty_url, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "recsys", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["acknowledged"] > 100
    assert result["lost"] == result["stored_twice"] == result["duplicate_runs"] == 0
    assert result["answers"] > 100
    assert set(result["errors"]) <= {"no answer", "503"}
    assert result["promotion_seconds"] < 60
