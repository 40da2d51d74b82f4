"""Each check finds the one thing that is wrong, and a sound log passes all."""

import numpy as np
import pytest

from recsys.config import load_settings
from recsys.events.frame import EventFrame
from recsys.events.times import DAY_US
from recsys.training.data_checks import ChampionData, check_frame

DAYS = 20


def frame(users=200, items=300, days=DAYS, events=20_000, change=None):
    rng = np.random.default_rng(5)
    columns = {
        "users": rng.integers(0, users, events),
        "items": rng.integers(0, items, events),
        "times": np.sort(rng.integers(0, days * DAY_US, events)),
        "types": np.zeros(events, np.int16),
    }
    if change is not None:
        change(columns)
    count = len(columns["times"])
    return EventFrame(
        users=columns["users"].astype(np.int32),
        items=columns["items"].astype(np.int32),
        event_types=columns["types"],
        sessions=np.zeros(count, np.uint64),
        timestamps_us=columns["times"].astype(np.int64),
        positions=np.arange(count),
        user_keys=[f"u:{n}" for n in range(users)],
        item_ids=[f"i{n}" for n in range(items)],
        type_names=["view", "tap"],
    )


KNOWN = ChampionData({f"i{n}" for n in range(300)}, {"view"}, 10 * DAY_US)


def failed(made, known=KNOWN, **sections):
    return {c.name for c in check_frame(made, load_settings(**sections), known) if not c.passed}


def test_a_sound_log_passes():
    assert failed(frame()) == set()
    assert len(check_frame(frame(), load_settings(), KNOWN)) == 11


def keep(columns, mask):
    for name in columns:
        columns[name] = columns[name][mask]


def silent(columns):
    columns["times"][columns["times"] > 5 * DAY_US] += 31 * DAY_US


def drop(columns):
    keep(columns, (columns["times"] < 19 * DAY_US) | (np.arange(20_000) == 19_999))


def surge(columns):
    for name in columns:
        columns[name] = np.concatenate((columns[name], np.repeat(columns[name][-1:], 80_000)))
    columns["users"] = np.arange(len(columns["users"])) % 200
    columns["items"] = np.arange(len(columns["items"])) % 300


def bot(columns):
    columns["users"][::2] = 7


def crowd(columns):
    """Two users in three have seen one item alone, each another."""
    odd = columns["users"] % 3 > 0
    columns["items"][odd] = columns["users"][odd] % 300


def one_item(columns):
    columns["items"][np.arange(20_000) % 5 < 3] = 9


def new_types(columns):
    columns["types"][columns["times"] > 10 * DAY_US] = 1


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (silent, {"max_gap_days"}),
        (drop, {"max_drop"}),
        (surge, {"max_surge"}),
        (one_item, {"max_item_share"}),
        (crowd, {"max_single_item_users"}),
        (new_types, {"max_new_type_share"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_found(change, found):
    assert failed(frame(change=change)) == found


def test_a_bot_is_capped_or_stops_the_run():
    made = frame(change=bot)
    assert failed(made, sequences={"max_user_events": 500}) == set()
    assert failed(made, sequences={"max_user_events": 0}) == {"max_user_share"}


def test_items_the_champion_never_saw_and_a_distribution_that_moved():
    def moved(columns):
        new = columns["times"] > 10 * DAY_US
        columns["items"] = np.where(new, columns["items"] % 150, 150 + columns["items"] % 150)

    known = ChampionData({f"i{n}" for n in range(150, 300)}, {"view"}, 10 * DAY_US)
    assert failed(frame(change=moved), known) == {"max_new_item_share", "max_drift"}


def test_too_little_is_said_and_nothing_else_is_judged():
    tiny = frame(users=1, events=20)
    assert failed(tiny) == {"min_events", "min_users"}
    empty = frame(events=20, change=lambda columns: keep(columns, np.zeros(20, np.bool_)))
    assert failed(empty, None) == {"min_events", "min_users"}
