"""bench replay: the figures that it promises, on a small shop, and what it refuses."""

from datetime import UTC, datetime

import pytest

from bench.commands.options import hours_us
from bench.replay import ReplayOptions, run_replay
from recsys.errors import InputError
from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.training.event_log import make_log
from recsys.training.run import Run


@pytest.fixture(scope="module")
def played(tiny_shop):
    log = make_log(frame_from_table(tiny_shop.events), tiny_shop.settings)
    cut_us = cut_for_share(log.sequences, 0.15)
    end_us = int(log.sequences.timestamps_us.max())
    half = (end_us - cut_us) // 2 + 1
    options = ReplayOptions(cut_us, 1_000_000, half, peers=True)
    return run_replay(log, tiny_shop.settings, options, Run(datetime(2025, 3, 1, tzinfo=UTC)))


def test_every_position_is_played_by_every_system(played):
    systems = {
        *("served_live", "served_still", "session_knn_live", "session_knn_still"),
        *("transitions_live", "transitions_still", "popular_hour_live"),
    }
    assert played["results"].keys() == systems
    for figures in played["results"].values():
        assert figures["recall@20_low"] <= figures["recall@20"] <= figures["recall@20_high"]
        assert figures["mrr@20"] <= figures["recall@20"] <= 1
    assert played["positions"] > 200 and 0 <= played["unknown_share"] < 1
    assert sum(hour["positions"] for hour in played["by_hour"]) == played["positions"]
    assert played["served_live_minus"].keys() == systems - {"served_live"}
    assert played["delay_seconds"] == 1 and played["memory_mib"] > 0
    assert played["update_ms_per_event"] > 0 and played["retrain_hours"] > 0


def test_counting_on_does_not_rank_worse_than_standing_still(played):
    change = played["served_live_minus"]["served_still"]["recall@20"]
    assert change["high"] > 0


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1.5h", "24d", "0h", "9999999h"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--retrain"):
        hours_us("--retrain", text)
