"""bench rerank: the figures that it promises, and that each setting does what it is for, on a small shop."""

from datetime import UTC, datetime

import pytest

from bench.reranking_costs import ORDERS, run_reranking
from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.training.event_log import make_log
from recsys.training.run import Run


@pytest.fixture(scope="module")
def results(tiny_shop):
    settings = tiny_shop.settings
    settings = settings.model_copy(
        update={"training": settings.training.model_copy(update={"epochs": 1})}
    )
    log = make_log(frame_from_table(tiny_shop.events), settings)
    items = {item.item_id: item for item in tiny_shop.shop.items}
    run = Run(datetime(2025, 3, 1, tzinfo=UTC))
    played = run_reranking(log, cut_for_share(log.sequences, 0.15), settings, items, 200, run)
    assert 50 < played["positions"] <= 200
    return played["results"]


def test_every_setting_has_its_figures(results):
    assert results.keys() == ORDERS.keys()
    for found in results.values():
        assert found["recall@20_low"] <= found["recall@20"] <= found["recall@20_high"]
        assert 0 <= found["mrr@20"] <= found["recall@20"] <= 1
        assert 0 < found["coverage@20"] <= 1 and found["milliseconds_p99"] > 0
    assert results["ranking"]["recall@20_change"] == 0


def test_each_setting_brings_what_it_is_for(results):
    base = results["ranking"]
    assert results["diversity 0.5"]["diversity_change_low"] > 0
    assert results["rotation 3 in 24 h"]["repeated"] < 0.7 * base["repeated"]
    assert results["explore 0.2"]["recall@20"] < base["recall@20"]
    assert results["chance * price"]["mrr@20"] < base["mrr@20"]
