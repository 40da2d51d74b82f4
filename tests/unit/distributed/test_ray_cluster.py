"""Ray: a cluster that is away or too small ends the training in time; its tasks read a table of yours."""

import socket
import time

import pytest

from recsys.config import Settings, TrainingSettings
from recsys.distributed.engine import opened_engine
from recsys.distributed.ray_cluster import connected
from recsys.errors import NotEnoughDataError, TrainingError
from recsys.progress import quiet

pytest.importorskip("ray")


def test_a_cluster_that_is_away_is_told_within_seconds():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    chosen = Settings(training=TrainingSettings(engine="ray", engine_address=address))
    started = time.monotonic()
    with (
        pytest.raises(TrainingError, match=f"no Ray cluster answers at {address}"),
        opened_engine(chosen),
    ):
        pass
    assert time.monotonic() - started < 30


def refuse():
    raise NotEnoughDataError("too little")


def fail():
    raise KeyError("a bug")


@pytest.mark.slow  # a cluster is started
@pytest.mark.timeout(300)
def test_tasks_fail_by_their_line_and_ranks_that_find_no_place_do_not_come():
    chosen = TrainingSettings(
        engine="ray", processes=2, ranks=2, rank_gpus=8, join_timeout_seconds=3
    )
    with opened_engine(Settings(training=chosen)) as engine:
        assert list(engine.read_ranges([int, str, list])) == [0, "", []]
        with pytest.raises(TrainingError, match=r"^too little$"):
            list(engine.read_ranges([refuse]))
        with pytest.raises(TrainingError, match="a task of the Ray cluster was lost or failed"):
            list(engine.read_ranges([fail]))
        with pytest.raises(TrainingError, match="0 of the 1 other ranks of the training came"):
            engine.gather_ranks(quiet)
    with connected("", 1) as again:  # nothing is left of the first
        assert list(again.results([int])) == [0]
