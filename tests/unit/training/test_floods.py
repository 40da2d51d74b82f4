"""A flood of sessions is left out and told; a broken log of users still stops a training."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.config import load_settings
from recsys.errors import DataCheckError
from recsys.events.frame import EventFrame
from recsys.events.identity import hash_texts
from recsys.events.large_arrays import HashedKeys
from recsys.events.times import DAY_US
from recsys.training.data_checks import check_before_training

DAYS, USERS, ITEMS, EVENTS = 20, 150, 300, 10_000
END_US = DAYS * DAY_US


def shop() -> EventFrame:
    """Twenty days of 150 users and 50 sessions that began early."""
    rng = np.random.default_rng(5)
    owners = USERS + 50
    return EventFrame(
        users=rng.integers(0, owners, EVENTS).astype(np.int32),
        items=rng.integers(0, ITEMS, EVENTS).astype(np.int32),
        event_types=np.zeros(EVENTS, np.int16),
        sessions=np.zeros(EVENTS, np.uint64),
        timestamps_us=np.sort(rng.integers(0, END_US, EVENTS)),
        positions=np.arange(EVENTS),
        user_keys=[f"u:{n}" for n in range(USERS)] + [f"s:{n}" for n in range(50)],
        item_ids=[f"i{n}" for n in range(ITEMS)],
        type_names=["view"],
    )


def flooded(frame, owners, items, kind="s", type_name="view", days=0.5):
    """`frame` and an event of each of `owners` (n,) with `items` (n,) in its last days."""
    count, rng = len(owners), np.random.default_rng(6)
    keys = [*frame.user_keys, *(f"{kind}:flood-{n}" for n in range(int(owners.max()) + 1))]
    ids = [*frame.item_ids, *(f"x{n}" for n in range(int(items.max()) + 1 - ITEMS))]
    types = [*frame.type_names] + ([] if type_name in frame.type_names else [type_name])

    def joined(name, more):
        before = getattr(frame, name)
        return np.concatenate((before, np.asarray(more).astype(before.dtype)))

    times = rng.integers(END_US - int(days * DAY_US), END_US, count)
    return replace(
        frame,
        users=joined("users", owners + len(frame.user_keys)),
        items=joined("items", items),
        event_types=joined("event_types", np.full(count, types.index(type_name))),
        sessions=joined("sessions", np.zeros(count)),
        timestamps_us=joined("timestamps_us", times),
        positions=joined("positions", np.arange(count) + EVENTS),
        user_keys=keys,
        item_ids=ids,
        type_names=types,
    )


def surge(kind):
    """Fifty times a day's events, of a thousand owners."""
    rng = np.random.default_rng(7)
    return flooded(shop(), rng.integers(0, 1_000, 40_000), rng.integers(0, ITEMS, 40_000), kind)


def one_loud(kind):
    """As many events as all others together."""
    rng = np.random.default_rng(7)
    return flooded(shop(), np.zeros(EVENTS, np.int64), rng.integers(0, ITEMS, EVENTS), kind)


def bots(kind):
    """Four hundred owners push one item, three times each."""
    owners = np.repeat(np.arange(400), 3)
    return flooded(shop(), owners, np.full(len(owners), 5), kind, days=6)


def one_item(kind):
    owners = np.arange(15_000) % 500
    return flooded(shop(), owners, np.where(owners % 9 == 0, 7, 5), kind, days=6)


@pytest.mark.parametrize("attack", [surge, one_loud, bots, one_item])
def test_a_flood_of_sessions_is_left_out_and_told(attack):
    said = []
    sound, checks = check_before_training(attack("s"), load_settings(), None, said.append)
    assert EVENTS * 0.9 < len(sound) <= EVENTS
    assert not {k for k in np.unique(sound.users) if "flood" in sound.user_keys[k]}
    assert np.array_equal(sound.positions, np.sort(sound.positions))
    told = [check for check in checks if not check.passed]
    assert told and all("left out" in check.meaning for check in told)
    assert any("a flood: left out" in line for line in said)


def test_sessions_are_known_by_their_hashes_too():
    """Which is all that sequence files keep."""
    frame = surge("s")
    hashed = replace(frame, user_keys=HashedKeys(hash_texts(frame.user_keys)))
    sound, _ = check_before_training(hashed, load_settings(), None, lambda line: None)
    assert EVENTS * 0.9 < len(sound) <= EVENTS


@pytest.mark.parametrize("attack", [surge, one_loud, bots, one_item])
def test_the_same_of_users_stops_the_training(attack):
    settings = load_settings(sequences={"max_user_events": 0})
    with pytest.raises(DataCheckError):
        check_before_training(attack("u"), settings, None, lambda line: None)


def test_a_sound_log_is_learned_whole():
    frame = shop()
    sound, checks = check_before_training(frame, load_settings(), None, lambda line: None)
    assert sound is frame and all(check.passed for check in checks)
