"""Measurements in small, without servers."""

import shutil

import pytest

from bench.consume_speed import SHAPES
from tests.conftest import unavailable


def test_an_import_in_small(measure):
    found = measure("ingest", "--events", 5_000)
    assert found["sqlite"]["ratio"] > 0
    assert found["postgresql"] is None


@pytest.mark.slow
def test_sequence_files_in_small(measure):
    built = measure("sequences", "--events", 5_000)
    assert built["events"] > 4_000
    assert built["peak_mib"] >= built["interpreter_mib"] > 0
    assert built["new_events"] > 40
    assert built["incremental_ratio"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_small_table_of_somebody_elses(measure, database_url):
    found = measure("table", "--events", 20_000, "--postgresql", database_url)
    assert found["rows"] > 18_000
    assert found["new_rows"] > 800
    assert found["raw"]["rows_per_second"] > 0 and found["build"]["rows_per_second"] > 0
    assert found["history_ms"]["p50"] <= found["history_ms"]["p99"]


def test_a_stream_in_small(measure):
    if shutil.which("redis-server") is None:
        unavailable("no redis-server is installed")
    found = measure("consume", "--events", 1_000)
    assert [run["message"] for run in found["runs"]] == list(SHAPES)
    for run in found["runs"]:
        assert run["database"] == "sqlite"
        assert run["messages_per_second"] <= run["events_per_second"]
        assert run["ratio"] > 0
