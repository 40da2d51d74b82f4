from dataclasses import replace

import numpy as np
import pyarrow as pa

from recsys.events.frame import frame_from_table
from recsys.ops.upkeep import FOLLOWERS, recent_steps


def frame_of(*walks: str):
    rows = [(f"u{n}", item, at) for n, walk in enumerate(walks) for at, item in enumerate(walk)]
    users, items, times = zip(*rows, strict=True)
    return frame_from_table(
        pa.table(
            {
                "user_id": list(users),
                "session_id": pa.nulls(len(rows), pa.string()),
                "item_id": list(items),
                "event_type": ["view"] * len(rows),
                "timestamp_us": [1_000_000 * at for at in times],
            }
        )
    )


def test_shares_are_counted_over_all_steps_and_held_down():
    frame = frame_of("aXb", "aXb", "ab", "aXc")
    steps = {(a, b): share for a, b, share in recent_steps(frame, {"a", "b", "c"}, 1_800)}
    assert set(steps) == {("a", "X"), ("X", "b")}  # a -> b is known, X -> c was taken once
    np.testing.assert_allclose(steps["a", "X"], 3 / (4 + 5))
    np.testing.assert_allclose(steps["X", "b"], 2 / (3 + 5))


def test_steps_between_owners_and_onto_itself_do_not_count():
    assert recent_steps(frame_of("X", "X", "XX", "XX"), set(), 1_800) == []
    assert recent_steps(frame_of("X"), set(), 1_800) == []


def test_the_strongest_followers_of_an_item_are_kept_surest_first():
    walks = [f"a{chr(0x100 + n)}" for n in range(FOLLOWERS + 5) for _ in range(2 + n)]
    steps = recent_steps(frame_of(*walks), {"a"}, 1_800)
    assert len(steps) == FOLLOWERS
    shares = [share for _, _, share in steps]
    assert shares == sorted(shares, reverse=True)
    assert steps[0][1] == chr(0x100 + FOLLOWERS + 4)


def test_one_owner_counts_once_however_often_a_step_is_taken():
    assert recent_steps(frame_of("aXaXaXaX"), {"a"}, 1_800) == []
    steps = {(a, b): share for a, b, share in recent_steps(frame_of("aXaXaX", "aX"), {"a"}, 1_800)}
    assert steps["a", "X"] == 2 / (2 + 5)


def test_sessions_do_not_bring_in_what_the_catalogue_lacks():
    walks = ["aX", "aX", "aY", "aY"]
    sessions = frame_of(*walks)
    sessions = replace(sessions, user_keys=[key.replace("u:", "s:") for key in sessions.user_keys])
    found = {(of, to) for of, to, _ in recent_steps(sessions, {"a"}, 1_800, {"X"})}
    assert found == {("a", "Y")}
    found = {(of, to) for of, to, _ in recent_steps(frame_of(*walks), {"a"}, 1_800, {"X"})}
    assert found == {("a", "X"), ("a", "Y")}
