"""Figures of several processes, each in files of its own."""

import subprocess
import sys

WORKER = """
from recsys.web import prometheus_metrics
prometheus_metrics.lost.inc(2)
print(prometheus_metrics.exposition((None, None), None).decode())
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
