from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.events.repeat_policy import RepeatPolicy, learn_repeat_policy
from recsys.events.sequences import Histories, Sequences
from recsys.events.times import DAY_US
from recsys.models.popular import Popular, PopularRecent
from recsys.models.rankers import BLENDABLE, RANKERS, dense_scores, fit_rankers
from recsys.models.sequential_rules import SequentialRules
from recsys.models.transitions import Transitions

ROWS = 12


def log_of(*sequences: list[int], spacing_us: int = 1_000_000) -> Sequences:
    lengths = [len(sequence) for sequence in sequences]
    items = np.array([item for sequence in sequences for item in sequence], np.int32)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    starts = np.zeros(len(items), np.bool_)
    starts[offsets[:-1]] = True
    return Sequences(
        offsets=offsets,
        items=items,
        event_types=np.zeros(len(items), np.int16),
        timestamps_us=(np.arange(len(items), dtype=np.int64) + 1) * spacing_us,
        session_starts=starts,
        keys=[f"u:{n}" for n in range(len(sequences))],
    )


def votes(ranker, *history: int) -> dict[int, float]:
    items, scores = ranker.votes(np.array(history, np.int32))
    return dict(zip(items.tolist(), scores.tolist(), strict=True))


def test_popular_counts_items_and_leaves_special_rows_out():
    assert votes(Popular.fit(log_of([2, 3, 3, 1, 1], [3]), ROWS)) == {2: 1.0, 3: 2.0}


def test_popular_recent_counts_the_last_seven_days():
    log = log_of([2, 2, 2, 3, 4], [4], spacing_us=3 * DAY_US)
    assert votes(PopularRecent.fit(log, ROWS)) == {3: 1.0, 4: 2.0}


def test_popular_counts_owners_whatever_the_parts_it_is_counted_in(monkeypatch):
    rng = np.random.default_rng(5)
    walks = [rng.integers(1, ROWS, rng.integers(1, 30)).tolist() for _ in range(40)]
    expected = {i: float(sum(i in walk for walk in walks)) for i in range(2, ROWS)}
    for chunk in (1, 7, 50, 10_000):
        monkeypatch.setattr("recsys.models.popular.CHUNK", chunk)
        found = votes(Popular.fit(log_of(*walks), ROWS))
        assert found == {i: count for i, count in expected.items() if count}


def test_transitions_count_direct_successors_within_a_sequence():
    ranker = Transitions.fit(log_of([2, 3, 2, 4], [2, 3], [5]), ROWS)
    found = votes(ranker, 9, 2)
    assert set(found) == {3, 4}
    assert 2 <= found[3] < 2.03
    assert 1 <= found[4] < 1.02
    assert votes(ranker, 4) == {}  # nothing crosses into the next sequence
    assert votes(ranker) == {}


def test_of_equal_counts_the_latest_goes_first():
    found = votes(Transitions.fit(log_of([2, 3], [2, 4]), ROWS), 2)
    assert found[4] > found[3]


def test_rules_weigh_by_one_over_distance_on_both_sides():
    ranker = SequentialRules.fit(log_of([2, 3, 4]), ROWS)
    assert votes(ranker, 2) == pytest.approx({3: 1.0, 4: 0.5}, rel=0.02)
    # 3 votes at distance 1, 2 at distance 2.
    assert votes(ranker, 2, 3) == pytest.approx({4: 1.0 + 0.25, 3: 0.5}, rel=0.02)


def test_rules_have_no_vote_for_the_item_itself():
    assert 2 not in votes(SequentialRules.fit(log_of([2, 2, 3, 2]), ROWS), 2)


@pytest.mark.parametrize("name", RANKERS)
@settings(max_examples=25, deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(1, ROWS - 1), max_size=12), min_size=1, max_size=8),
    history=st.lists(st.integers(1, ROWS - 1), max_size=15),
)
def test_votes_are_distinct_positive_known_and_survive_saving(name, sequences, history):
    log = log_of(*[sequence for sequence in sequences if sequence] or [[2]])
    ranker = RANKERS[name].fit(log, ROWS)
    found = np.array(history, np.int32)
    items, scores = ranker.votes(found)
    assert len(np.unique(items)) == len(items) == len(scores)
    assert (scores > 0).all()
    assert (items >= 2).all()
    again = RANKERS[name].from_arrays(ranker.arrays())
    assert np.array_equal(again.votes(found)[0], items)
    assert np.array_equal(again.votes(found)[1], scores)


def test_dense_scores_hold_the_votes_and_never_rank_special_rows():
    ranker = Transitions.fit(log_of([2, 3], [4, 5]), ROWS)
    scores = dense_scores(ranker, Histories.from_lists([[2], [4], []]), ROWS)
    assert scores.shape == (3, ROWS)
    assert np.isneginf(scores[:, :2]).all()
    assert scores[0].argmax() == 3
    assert scores[1].argmax() == 5
    assert (scores[2, 2:] == 0).all()


@pytest.mark.parametrize(
    ("sequence", "policy"),
    [
        ([2, 3, 4, 5], RepeatPolicy(False, False)),
        ([2, 2, 3, 4], RepeatPolicy(True, False)),
        ([2, 3, 2, 3], RepeatPolicy(False, True)),
        ([2, 2, 3, 2], RepeatPolicy(True, True)),
    ],
)
def test_what_may_recur_is_learned_from_the_log(sequence, policy):
    assert learn_repeat_policy(log_of(*[sequence] * 5)) == policy


def test_a_rare_accident_of_logging_does_not_count():
    sequences = [[2, 3, 4, 5]] * 200 + [[2, 2]]
    assert learn_repeat_policy(log_of(*sequences)) == RepeatPolicy(False, False)


@pytest.mark.parametrize(
    ("current", "seen", "left"),
    [
        (True, True, {2, 3, 4}),
        (False, True, {2, 4}),
        (True, False, {3, 4}),
        (False, False, {4}),
    ],
)
def test_masking_takes_out_what_may_not_recur(current, seen, left):
    scores = np.zeros((1, 5), np.float32)
    scores[:, :2] = -np.inf
    RepeatPolicy(current, seen).mask(scores, Histories.from_lists([[2, 3]]))
    assert set(np.flatnonzero(np.isfinite(scores[0])).tolist()) == left


@pytest.mark.parametrize("kind", RANKERS.values(), ids=RANKERS)
def test_a_ranker_describes_itself(kind):
    assert kind.label and RANKERS[kind.name] is kind
    assert (kind.name in BLENDABLE) is kind.blendable
    ranker = kind.fit(log_of([2, 3, 4], [3, 4]), ROWS)
    for key, values in kind.search_space.items():
        assert getattr(ranker, key) == values[0]  # the default is what the search starts from


def test_what_was_chosen_for_a_ranker_is_kept_when_it_is_fitted_anew():
    log = log_of([2, 3, 4], [3, 4])
    plain = fit_rankers(log, ROWS, 100)
    tuned = {"session_knn": replace(plain["session_knn"], order_decay=3.0, copy_share=0.6)}
    again = fit_rankers(log, ROWS, 100, tuned)["session_knn"]
    assert (again.order_decay, again.copy_share) == (3.0, 0.6)
    assert (again.untuned().order_decay, again.untuned().copy_share) == (0.0, 0.0)
    assert again.as_component().copy_share == 0.0
    assert plain["transitions"].tuned_like(again) is plain["transitions"]
