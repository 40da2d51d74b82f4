"""Rankers counted on: the same votes as if they had been fitted to all that happened."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.events.sequences import Histories, Sequences
from recsys.events.vocabulary import FIRST_ITEM, Vocabulary
from recsys.models.live_log import NOWHERE, LiveLog
from recsys.models.live_view import LiveView
from recsys.models.ranking import best
from recsys.models.sequential_rules import SequentialRules
from recsys.models.session_knn import SessionKnn
from recsys.models.transitions import Transitions

ITEMS = 30
VOCABULARY = Vocabulary([f"i{number}" for number in range(ITEMS)])
ROWS = len(VOCABULARY)
SECOND = 1_000_000
NO_SESSION = np.zeros(1, np.uint64)


def sessions_of(count: int, seed: int) -> list[list[int]]:
    """Sessions of different items each, as rows of the vocabulary."""
    rng = np.random.default_rng(seed)
    return [
        (FIRST_ITEM + rng.choice(ITEMS, rng.integers(2, 7), replace=False)).tolist()
        for _ in range(count)
    ]


def as_sequences(sessions: list[list[int]]) -> Sequences:
    """One owner a session, one second an event, one session after the other."""
    lengths = np.array([len(one) for one in sessions])
    items = np.array([item for one in sessions for item in one], np.int32)
    starts = np.zeros(len(items), np.bool_)
    starts[np.cumsum(lengths) - lengths] = True
    return Sequences(
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        items=items,
        event_types=np.ones(len(items), np.int16),
        timestamps_us=np.arange(1, len(items) + 1, dtype=np.int64) * SECOND,
        session_starts=starts,
        keys=[f"s:{number}" for number in range(len(sessions))],
    )


def view_of(since_us: int = 0, width: int = 4) -> LiveView:
    rng = np.random.default_rng(5)
    table = rng.normal(size=(ROWS, width)).astype(np.float32)
    return LiveView(VOCABULARY, table, np.zeros(ROWS, np.float32), since_us)


def put(log: LiveLog, owner: int, names: list[str], time_us: int) -> LiveLog:
    for number, name in enumerate(names):
        log = log.append([owner], [name], np.array([time_us + number * SECOND]), NO_SESSION)
    return log


def played(sessions: list[list[int]], first_owner: int, time_us: int) -> LiveLog:
    log = LiveLog(1_800, 10_000)
    for number, session in enumerate(sessions):
        names = [VOCABULARY.item_id(row) for row in session]
        log = put(log, first_owner + number, names, time_us)
        time_us += len(session) * SECOND
    return log


def moment_of(log: LiveLog, view: LiveView, asker: int = NOWHERE, own: tuple[str, ...] = ()):
    view.catch_up(log)
    return view.moment(own, log.owner(asker), 10**15)


def as_dict(votes) -> dict[int, float]:
    return dict(zip(votes[0].tolist(), votes[1].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [Transitions, SequentialRules, SessionKnn], ids=lambda k: k.name)
def test_what_is_counted_on_votes_as_what_was_fitted_to_everything(kind, seed):
    early, late = sessions_of(60, seed), sessions_of(50, seed + 100)
    fitted, whole = (kind.fit(as_sequences(part), ROWS) for part in (early, early + late))
    if kind is SessionKnn:
        fitted, whole = replace(fitted, order_decay=3.0), replace(whole, order_decay=3.0)
    split_us = sum(map(len, early)) * SECOND
    log = played(late, 1_000, split_us + SECOND)
    moment = moment_of(log, view_of(split_us))
    rng = np.random.default_rng(seed)
    for _ in range(40):
        history = (FIRST_ITEM + rng.choice(ITEMS, rng.integers(1, 5), replace=False)).astype(
            np.int32
        )
        found, wanted = as_dict(fitted.live_votes(history, moment)), as_dict(whole.votes(history))
        if (
            kind is SequentialRules
        ):  # the log counts five steps ahead, which no session here exceeds
            assert max(map(len, early + late)) <= 6
        assert found.keys() == wanted.keys()
        for row, vote in wanted.items():
            assert found[row] == pytest.approx(vote, rel=0.02)  # newer steps break ties by up to 1%


def test_without_new_events_the_votes_are_the_versions():
    fitted = SessionKnn.fit(as_sequences(sessions_of(80, 1)), ROWS)
    moment = moment_of(LiveLog(1_800, 1_000), view_of())
    for history in ([2], [2, 9, 4], [1, 1], []):
        given = np.array(history, np.int32)
        assert as_dict(fitted.live_votes(given, moment)) == pytest.approx(
            as_dict(fitted.votes(given)), rel=1e-5
        )


@pytest.mark.parametrize("kind", [Transitions, SequentialRules, SessionKnn], ids=lambda k: k.name)
def test_a_flood_from_one_owner_weighs_no_more_than_one_visitor(kind):
    fitted = kind.fit(as_sequences(sessions_of(60, 3)), ROWS)
    once = put(LiveLog(1_800, 10_000), 7, ["i1", "i2"], 10**12)
    flood = once
    for turn in range(1, 300):  # each in a session of its own
        flood = put(flood, 7, ["i1", "i2"], 10**12 + turn * 3_600 * SECOND)
    history = np.array([VOCABULARY.index("i1")], np.int32)
    wanted = VOCABULARY.index("i2")
    one = as_dict(fitted.live_votes(history, moment_of(once, view_of())))
    many = as_dict(fitted.live_votes(history, moment_of(flood, view_of())))
    assert many[wanted] <= one[wanted] * 1.001


@pytest.mark.parametrize("kind", [Transitions, SequentialRules, SessionKnn], ids=lambda k: k.name)
def test_the_askers_own_events_do_not_vote(kind):
    fitted = kind.fit(as_sequences(sessions_of(60, 3)), ROWS)
    log = put(LiveLog(1_800, 10_000), 7, ["i1", "new"], 10**12)
    history = np.array([VOCABULARY.index("i1")], np.int32)
    own = as_dict(fitted.live_votes(history, moment_of(log, view_of(), asker=7)))
    others = as_dict(fitted.live_votes(history, moment_of(log, view_of(), asker=8)))
    assert ROWS in others and ROWS not in own  # the new item stands behind the vocabulary


def test_a_moment_does_not_change_with_what_comes_later():
    fitted = SessionKnn.fit(as_sequences(sessions_of(60, 3)), ROWS)
    rules = SequentialRules.fit(as_sequences(sessions_of(60, 3)), ROWS)
    log, view = played(sessions_of(40, 9), 100, 10**12), view_of()
    history = np.array([2, 5, 8], np.int32)
    moment = moment_of(log, view)
    before = [as_dict(one.live_votes(history, moment)) for one in (fitted, rules)]
    for number, session in enumerate(sessions_of(200, 10)):
        names = [VOCABULARY.item_id(row) for row in session] + [f"new{number}"]
        log = put(log, 100 + number, names, 10**12 + 10**9)  # owners of before go on
        view.catch_up(log)
    # How many sessions hold an item is read as it is now, which moves weights a little and no item.
    after = [as_dict(one.live_votes(history, moment)) for one in (fitted, rules)]
    assert after[1] == before[1]
    assert after[0].keys() <= before[0].keys()


def test_the_newest_events_of_a_full_log_are_a_log_of_their_own():
    rng = np.random.default_rng(0)
    log, given = LiveLog(1_800, 1_000), []
    for turn in range(40):
        rows = [(int(rng.integers(30)), f"i{rng.integers(40)}") for _ in range(97)]
        times = (np.arange(97, dtype=np.int64) + 97 * turn) * 60 * SECOND
        hashes = rng.integers(0, 2, 97).astype(np.uint64)
        log = log.append([owner for owner, _ in rows], [item for _, item in rows], times, hashes)
        given += list(zip(rows, times.tolist(), hashes.tolist(), strict=True))
    assert 500 <= len(log) <= 1_000
    fresh = LiveLog(1_800, 1_000)
    for (owner, item), time_us, session in given[-len(log) :]:
        fresh = fresh.append([owner], [item], np.array([time_us]), np.array([session], np.uint64))
    assert log.item_ids == fresh.item_ids and log.sessions == fresh.sessions
    for name in ("codes", "owners", "sessions", "places", "same_item", "before", "after"):
        ours, theirs = (getattr(one.arrays, name)[: len(log)] for one in (log, fresh))
        np.testing.assert_array_equal(ours, theirs, name)
    assert log.bytes < 500 * 1_024


def test_a_new_item_has_the_mean_of_its_neighbours_and_is_ranked_and_copied(tiny_shop):
    bundle = tiny_shop.bundle
    view = LiveView.of(bundle, 0)
    known = bundle.vocabulary.item_ids
    log = LiveLog(1_800, 1_000)
    for owner in range(30):
        log = put(log, owner, [known[3], "brand new", known[4]], 10**12)
    moment = moment_of(log, view, own=(known[3], "only mine"))
    new, mine = moment.vocabulary.index("brand new"), moment.vocabulary.index("only mine")
    assert (new, mine) == (len(bundle.vocabulary), len(bundle.vocabulary) + 1)
    table = bundle.network.items.weight.detach().numpy()
    rows = bundle.vocabulary.encode([known[3], known[4]])
    np.testing.assert_allclose(
        view.vectors(np.array([new]))[0], table[rows].sum(0) * 30 / 60.5, rtol=1e-4
    )
    assert not view.vectors(np.array([mine])).any()

    live = bundle.with_live(moment)
    blend = {"lstm": 0.5, "transitions": 0.5}
    live = replace(
        live, ranking="live", blends={"live": replace(bundle.blends["lstm"], weights=blend)}
    )
    after = Histories.from_lists([[int(rows[0])]])
    assert new in [row for row, _, _ in best(live, after, 3)]
    # One that nobody else knows is copied from the history it stands in.
    state = live.scorer.state(
        Histories.from_lists([[mine, int(rows[0]), int(rows[1])]]), view.vectors
    )
    assert mine in state.pointed and state.shares[state.pointed == mine].sum() > 0
