"""Figures of several processes, each in files of its own, and without room for one."""

import errno
import os
import subprocess
import sys

import pytest
from prometheus_client.mmap_dict import MmapedDict

from recsys.web.prometheus_metrics import FIRST_BYTES, ReservedFigures

WORKER = """
from recsys.serving.active_model import Models
from recsys.web import prometheus_metrics
prometheus_metrics.lost.inc(2)
print(prometheus_metrics.exposition(Models(), None).decode())
"""


def test_a_file_of_a_process_that_starts_holds_no_figure_yet(tmp_path):
    (tmp_path / "counter_1.db").touch()  # as it is between its opening and its first length
    (tmp_path / "gauge_livesum_1.db").touch()
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for total in (2, 4):
        done = subprocess.run(
            [sys.executable, "-c", WORKER],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert f"recsys_impressions_lost_total {total}.0" in done.stdout
        assert "recsys_impressions_waiting 0.0" in done.stdout


@pytest.fixture
def full(monkeypatch):
    """Call it, and the disk has no room from then on."""

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, "posix_fallocate", no_room)


def held_by(figures):
    return {key: value for key, value, _ in figures.read_all_values()}


def held_by_file(path):
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(path)}


def test_figures_are_in_a_file_whose_room_is_taken(tmp_path):
    path = tmp_path / "counter_1.db"
    figures = ReservedFigures(str(path))
    written = {f"key-{number:05d}": float(number) for number in range(5_000)}
    for key, value in written.items():
        figures.write_value(key, value, 0.0)
    assert held_by_file(path) == held_by(figures) == written
    assert path.stat().st_size > FIRST_BYTES and path.stat().st_blocks * 512 >= path.stat().st_size
    figures.close()
    again = ReservedFigures(str(path))
    assert held_by(again) == written
    again.close()


def test_without_room_figures_go_on_in_memory(tmp_path, full):
    full()
    path = tmp_path / "counter_1.db"
    figures = ReservedFigures(str(path))
    for number in range(5_000):
        figures.write_value(f"key-{number:05d}", float(number), 0.0)
    assert len(held_by(figures)) == 5_000
    assert not path.exists()
    figures.close()


def test_a_file_that_cannot_grow_keeps_what_it_held(tmp_path, full):
    path = tmp_path / "counter_1.db"
    figures = ReservedFigures(str(path))
    figures.write_value("first", 1.0, 0.0)
    full()
    for number in range(5_000):
        figures.write_value(f"key-{number:05d}", float(number), 0.0)
    figures.write_value("first", 2.0, 0.0)
    assert len(held_by(figures)) == 5_001 and held_by(figures)["first"] == 2.0
    kept = held_by_file(path)
    assert kept["first"] == 1.0 and 1_000 < len(kept) < 5_001
    figures.close()
