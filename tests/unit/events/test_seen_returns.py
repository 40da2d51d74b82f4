"""How often seen items come next again, by a slow count, and what is decided from it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config.exclude_seen import DEFAULT
from recsys.events.seen_returns import MIN_STEPS, Returns, count_returns, learn_default
from recsys.events.sequences import Sequences

TYPES = ["view", "cart", "purchase"]
visits = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=12), max_size=6
)


def sequences_of(log) -> Sequences:
    """Each of `log` a sequence of (item, type code)."""
    lengths = [len(one) for one in log]
    rows = [row for one in log for row in one]
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return Sequences(
        offsets=offsets.astype(np.int64),
        items=np.array([item for item, _ in rows], np.int32),
        event_types=np.array([kind for _, kind in rows], np.int16),
        timestamps_us=np.arange(len(rows), dtype=np.int64),
        session_starts=np.zeros(len(rows), np.bool_),
        keys=[f"u:{number}" for number in range(len(log))],
    )


def by_hand(log, kind, buying):
    """(steps, returned, chance, bought) of items seen by `kind`, and what is bought of new ones."""
    steps = [(one, at) for one in log for at in range(1, len(one)) if one[at][0] != one[at - 1][0]]
    targets = [one[at][0] for one, at in steps]
    count = back = 0
    chance, bought, new = 0.0, [], []
    for one, at in steps:
        item = one[at][0]
        is_bought = any(other == item and code in buying for other, code in one[at:])
        if item not in {other for other, _ in one[:at]}:
            new.append(is_bought)
        seen = {other for other, code in one[:at] if code == kind} - {one[at - 1][0]}
        if not seen:
            continue
        count += 1
        chance += sum(targets.count(other) for other in seen) / len(targets)
        if item in seen:
            back += 1
            bought.append(is_bought)
    return count, back, chance, bought, new


@settings(max_examples=200, deadline=None)
@given(visits, st.sets(st.integers(0, 2)))
def test_it_counts_as_a_slow_count_does(log, buying):
    found, new_bought = count_returns(sequences_of(log), buying)
    known = any(code in buying for one in log for _, code in one)
    for kind in range(3):
        steps, back, chance, bought, new = by_hand(log, kind, buying)
        assert (kind in found) == (steps > 0)
        if steps:
            one = found[kind]
            assert (one.steps, one.returned) == (steps, pytest.approx(back / steps))
            assert one.chance == pytest.approx(chance / steps)
            told = np.mean(bought) if known and bought else None
            assert one.bought == (None if told is None else pytest.approx(told))
        assert new_bought == (pytest.approx(np.mean(new)) if known and new else None)


def test_the_rule():
    often = Returns(MIN_STEPS, 0.3, 0.05, 0.02)
    assert often.shown_again(None) and often.shown_again(0.02)
    assert often.shown_again(0.03) is False  # it comes again, and is bought less than what is new
    assert Returns(MIN_STEPS, 0.19, 0.01, None).shown_again(None) is False  # it seldom comes again
    assert Returns(MIN_STEPS, 0.3, 0.2, None).shown_again(None) is False  # as by chance
    assert Returns(MIN_STEPS - 1, 0.3, 0.05, None).shown_again(None) is None


def onwards(kind):
    return [[(item, kind) for item in range(700)], [(item, kind) for item in range(700)]]


@pytest.mark.parametrize(
    ("log", "decided"),
    [
        (onwards(0), "all"),
        (onwards(2), "all"),
        (onwards(0)[:1], DEFAULT),  # too few steps to tell: as it was
        ([one + two for one, two in zip(onwards(0), onwards(2), strict=True)], "all"),
        ([[(0, 2), (1, 2), (2, 2), (3, 2)] * 600, [(9, 1)]], "none"),  # bought again and again
        (
            [[(0, 0), (1, 0), (2, 0), (3, 0)] * 600, [(9, 2)]],
            "purchase",
        ),  # looked at again and again
        ([[(0, 0), (1, 0), (2, 0), (3, 0)] * 600], DEFAULT),  # and what it calls buying is unknown
    ],
)
def test_the_default_that_a_log_asks_for(log, decided, monkeypatch):
    # Of so few items chance alone brings back as many.
    monkeypatch.setattr("recsys.events.seen_returns.MIN_LIFT", 0.9)
    found = learn_default(sequences_of(log), TYPES, ["purchase"])
    assert found.exclude_seen == decided
    assert found.said()


def test_nothing_is_decided_by_no_events():
    found = learn_default(sequences_of([]), [], ["purchase"])
    assert (found.exclude_seen, found.by_type) == (DEFAULT, {})
    assert "too few events" in found.said()
