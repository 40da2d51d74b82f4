"""A plan is arithmetic that can be done by hand, and grows with what is asked of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import TrainingSettings
from recsys.ops.capacity import (
    SHIPPED,
    Costs,
    Shop,
    cold_passes,
    plan,
    warm_passes,
)

ROUND = Costs(
    source="by hand",
    cores=2,
    training_events=10_000,
    file_events=100_000,
    import_events=20_000,
    answer_ms=5.0,
    item_ns=10.0,
    post_ms=2.0,
    event_bytes=2**10,
)
LIVE = 1_000_000


def planned(events, items, requests, months=1, costs=ROUND, **training):
    return plan(Shop(events, items, requests, months), costs, TrainingSettings(**training), LIVE)


def test_by_hand():
    found = planned(30 * 86_400, 500_000, 60)  # an event a second, four at the peak
    assert found.posted_per_second == pytest.approx(4)
    assert found.answer_ms == pytest.approx(10)
    # 60 answers of 10 ms and 4 posts of 2 ms are 0.608 s a second: two cores that are 0.6 full.
    assert (found.workers, found.serving_cores) == (2, 2)
    assert found.database_gib == pytest.approx(2_592_000 / 2**20)
    assert found.import_hours == pytest.approx(2_592_000 / 20_000 / 3_600)
    assert found.cold_hours == pytest.approx(16 * 2_592_000 / 10_000 / 3_600)
    assert found.warm_hours == pytest.approx(found.cold_hours / 4)
    assert found.worker_mib == pytest.approx(180 + 2 * 86_400 * 150 / 2**20)
    assert found.training_machines == 1
    assert found.notes == ()


def test_what_is_kept_is_learned_and_stored():
    one, three = (planned(10**7, 1_000, 1, months) for months in (1, 3))
    assert three.database_gib == pytest.approx(3 * one.database_gib)
    assert three.cold_hours == pytest.approx(3 * one.cold_hours)
    assert (three.workers, three.worker_mib) == (one.workers, one.worker_mib)


def test_passes_are_those_of_the_configuration():
    assert (cold_passes(TrainingSettings()), warm_passes(TrainingSettings())) == (16, 4)
    quick = TrainingSettings(epochs=5, refit=False, final_epochs=2, warm_epochs=9)
    assert (cold_passes(quick), warm_passes(quick)) == (7, 3)


@given(
    st.integers(1, 10**12),
    st.integers(1, 10**9),
    st.floats(0, 10**7),
    st.sampled_from(["events", "items", "requests"]),
)
def test_more_needs_no_less(events, items, requests, what):
    shop = Shop(events, items, requests)
    more = replace(shop, **{what: getattr(shop, what) * 2})
    settings = TrainingSettings()
    less, found = (plan(one, SHIPPED, settings, LIVE) for one in (shop, more))
    for name, value in vars(less).items():
        if name != "notes":
            assert value >= 0
            assert getattr(found, name) >= value, name
    assert found.workers >= 1 and found.training_machines >= 1
    assert len(found.notes) >= len(less.notes)


def test_where_the_design_ends_is_said():
    assert "scans them all" in planned(1_000, 10**7, 1).notes[0]
    assert "more than one PostgreSQL server" in planned(1_000, 100, 10**5).notes[0]
    far = planned(10**9, 1_000, 1)
    assert "sequences.max_days" in far.notes[0]
    assert far.training_machines > 1
