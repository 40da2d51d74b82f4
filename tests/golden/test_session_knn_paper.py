"""VMIS-kNN against a slow, literal reading of its paper (algorithm 1 of Serenade)."""

import math
from dataclasses import replace

import numpy as np
import pytest

from recsys.events.sequences import Sequences
from recsys.models import session_knn
from recsys.models.session_knn import SessionKnn

ROWS = 30


def log_of(sessions: list[list[int]], times: list[int]) -> Sequences:
    lengths = [len(session) for session in sessions]
    items = np.array([item for session in sessions for item in session], np.int32)
    starts = np.zeros(len(items), np.bool_)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    starts[offsets[:-1]] = True
    return Sequences(
        offsets=offsets,
        items=items,
        event_types=np.zeros(len(items), np.int16),
        timestamps_us=np.repeat(times, lengths).astype(np.int64),
        session_starts=starts,
        keys=[f"s:{n}" for n in range(len(sessions))],
    )


def literal(sessions, times, history, m, k, window):
    """The paper's loops, one item and one session at a time."""
    recent = history[-window:]
    length = len(recent)
    similarity: dict[int, float] = {}
    nearest: dict[int, int] = {}
    for item in set(recent):
        position = max(p for p, other in enumerate(recent, 1) if other == item)
        holders = [n for n, session in enumerate(sessions) if item in session]
        holders.sort(key=lambda n: (times[n], n), reverse=True)
        for n in holders[:m]:
            similarity[n] = similarity.get(n, 0.0) + position / length
            nearest[n] = min(nearest.get(n, window), length - position)
    best = sorted(similarity, key=lambda n: (similarity[n], times[n], n), reverse=True)[:k]
    scores: dict[int, float] = {}
    for n in best:
        for item in set(sessions[n]):
            holders = sum(item in session for session in sessions)
            idf = math.log(len(sessions) / holders)
            weight = similarity[n] * (1.0 - 0.1 * nearest[n])
            scores[item] = scores.get(item, 0.0) + weight * idf
    return {item: score for item, score in scores.items() if score > 0}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("m", "k"), [(500, 100), (4, 3)])
def test_fast_equals_literal(monkeypatch, seed, m, k):
    monkeypatch.setattr(session_knn, "RECENT_SESSIONS", m)
    monkeypatch.setattr(session_knn, "NEIGHBOURS", k)
    rng = np.random.default_rng(seed)
    sessions = [rng.integers(2, ROWS, rng.integers(1, 8)).tolist() for _ in range(60)]
    times = rng.permutation(60).tolist()
    index = SessionKnn.fit(log_of(sessions, times), ROWS)
    for _ in range(30):
        history = rng.integers(2, ROWS, rng.integers(1, 14)).tolist()
        items, scores = index.votes(np.array(history, np.int32))
        expected = literal(sessions, times, history, m, k, session_knn.WINDOW)
        assert sorted(items.tolist()) == sorted(expected)
        for item, score in zip(items.tolist(), scores.tolist(), strict=True):
            assert score == pytest.approx(expected[item], rel=1e-5)


def test_copying_favours_the_nearest_of_the_session():
    sessions = [[2, 3, 9], [4, 5, 9], [6, 7, 9]]
    index = replace(SessionKnn.fit(log_of(sessions, [1, 2, 3]), ROWS), copy_share=1.0)
    items, scores = index.votes(np.array([20, 21, 2], np.int32))
    found = dict(zip(items.tolist(), scores.tolist(), strict=True))
    assert found[21] > found[20] > 0


@pytest.mark.parametrize("seed", range(5))
def test_order_decay_weighs_by_steps_from_the_latest_match(seed):
    """Literally: a vote is multiplied by exp(-steps / decay), one step ahead counting as none."""
    rng = np.random.default_rng(seed)
    sessions = [
        rng.permutation(np.arange(2, ROWS))[: rng.integers(2, 8)].tolist() for _ in range(40)
    ]
    times = list(range(40))
    plain = SessionKnn.fit(log_of(sessions, times), ROWS)
    decayed = replace(plain, order_decay=2.5)
    history = rng.permutation(np.arange(2, ROWS))[:4].tolist()
    length = len(history)
    expected: dict[int, float] = {}
    for session in sessions:
        shared = [item for item in history if item in session]
        if not shared:
            continue
        similarity = sum((history.index(item) + 1) / length for item in shared)
        latest = max(shared, key=history.index)
        weight = similarity * (1 - 0.1 * (length - 1 - history.index(latest)))
        for place, item in enumerate(session):
            ahead = place - session.index(latest)
            steps = ahead - 1 if ahead > 0 else -ahead
            frequency = sum(item in other for other in sessions)
            vote = weight * math.log(len(sessions) / frequency) * math.exp(-steps / 2.5)
            expected[item] = expected.get(item, 0.0) + vote
    items, scores = decayed.votes(np.array(history, np.int32))
    found = dict(zip(items.tolist(), scores.tolist(), strict=True))
    for item, vote in found.items():
        assert vote == pytest.approx(expected[item], rel=1e-5)
    assert {item for item, vote in expected.items() if vote > 1e-9} == set(found)
