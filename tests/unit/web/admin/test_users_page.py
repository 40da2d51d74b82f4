"""What the pages Users, Items and What-if work out before they show it."""

import pytest

from recsys.storage.dashboard.visitor_views import TimeLineEvent
from recsys.web.admin import time_line
from recsys.web.admin.exposures import concentration
from recsys.web.admin.items_page import model_ids


def event(second, kind="view", session_id=None):
    at_us = second * 1_000_000
    return TimeLineEvent(second, None, session_id, f"i{second}", kind, at_us, f"e{second}")


def test_visits_end_by_a_gap_or_a_new_session():
    events = [event(0), event(10), event(11, session_id="s"), event(100, session_id="s")]
    found = time_line.visits(events, 60)
    assert [[m.event.item_id for m in visit.moments] for visit in found] == [
        ["i0", "i10"], ["i11"], ["i100"],
    ]  # fmt: skip
    assert [visit.gap_seconds for visit in found] == [None, 1, 89]
    assert [m.gap_seconds for m in found[0].moments] == [None, 10]
    assert found[0].seconds == 10
    assert time_line.visits([], 60) == []


def test_every_type_has_a_shape_and_the_strip_shows_each_event():
    kinds = [f"kind-{n}" for n in range(9)] + ["view", "purchase"]
    shape_of = time_line.shapes(kinds)
    assert set(shape_of) == set(kinds)
    assert (shape_of["view"], shape_of["purchase"]) == ("circle", "diamond")
    found = time_line.visits([event(at, kind) for at, kind in enumerate(kinds)], 60)
    strip = time_line.strip(found, shape_of, {"i0": "<b>"})
    assert strip.count('<g transform="') == 11
    assert "&lt;b&gt;" in strip and "<b>" not in strip
    assert "11 events in 1 visit," in strip


def test_concentration_by_hand():
    # Shares cumulated over 4 items, one never shown: 0, .1, .3, 1; Gini 1 + 1/4 - 2/4 * 1.4.
    found = concentration([7, 1, 2], 4)
    assert found.gini == pytest.approx(0.55)
    assert (found.items, found.shown, found.top_share) == (4, 3, 0.7)
    assert [share for _, share in found.curve] == [0, 0, 0.1, 0.3, 1]
    assert concentration([], 4) is None
    assert concentration([3], 0).gini == 0  # shown, but in no catalogue


def test_ids_of_the_model_that_hold_a_text():
    ids = ["Tea-1", "cup", "tea", "TEAPOT"]
    assert model_ids(ids, "tea", 2) == ["tea", "Tea-1"]
    assert model_ids(ids, "tea", 9) == ["tea", "Tea-1", "TEAPOT"]
    assert model_ids(ids, "kettle", 9) == []
