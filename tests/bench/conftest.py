"""`recsys bench …` within this process, since each new one loads for seconds."""

import json
import os
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.cli.register import register
from tests.integration.command_line.conftest import SMALL


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """measure("ingest", "--events", 5_000): what the command prints as JSON, of a small network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    monkeypatch.chdir(tmp_path)
    register(app)

    def run(*arguments: object) -> dict:
        words = ["bench", *map(str, arguments), "--json"]
        with patch.dict(os.environ, {**kept, **SMALL}, clear=True):  # a command may set variables
            done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    return run
