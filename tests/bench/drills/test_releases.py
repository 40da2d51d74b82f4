"""Which Python runs a release, and what another release can be used for."""

import sys

import pytest

from bench.drills.faults import Scale, run_faults
from bench.releases import Release
from recsys.errors import InputError


def test_a_release_runs_with_its_own_python_where_it_has_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    release = Release(tmp_path)
    assert release.command == [sys.executable, "-m", "recsys"]
    assert release.python_path == f"{tmp_path}:/elsewhere"
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert release.command == [str(own), "-m", "recsys"]


def test_another_release_is_for_the_attacks_alone(tmp_path):
    with pytest.raises(InputError, match="attacks"):
        run_faults(Scale(), ["attacks", "poison"], release=tmp_path)
