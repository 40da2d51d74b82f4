"""Answers as rows, and their counts."""

from dataclasses import replace

from recsys.storage.entities import (
    answer_count_rows,
    impression_rows,
)
from recsys.storage.entities.impression_rows import Impression, ImpressionItem


def an_answer():
    return Impression(
        recommendation_id="r1",
        created_at_us=1,
        user_id="u",
        session_id=None,
        model_version="v",
        arm="champion",
        scenario=None,
        items=(("a", "lstm", 0.5), ("b", "popular", 0.1)),
    )


def test_an_answer_that_is_stored_twice_counts_once(database):
    """As when two threads write what waits, or a commit's answer was lost."""
    answer = an_answer()
    other = replace(answer, recommendation_id="r2")
    for given in ([answer], [answer, other]):
        with database.begin() as connection:
            impression_rows.insert_impressions(connection, given)
    with database.connect() as connection:
        (row,) = answer_count_rows.counts(connection, 0, 10**12, ("arm",))
    assert row["shown"] == 2


def test_the_newest_answers_to_somebody_hold_what_was_really_shown(database):
    given = [
        replace(an_answer(), recommendation_id=name, created_at_us=at_us, **more)
        for name, at_us, more in (
            ("r1", 10, {}),
            ("r2", 20, {"shown": ("b",)}),
            ("r3", 30, {"items": (ImpressionItem("c", "explored", 0.1, 0.04),)}),
            ("r4", 30, {"user_id": "v"}),
            ("r5", 40, {"user_id": None, "session_id": "u"}),
        )
    ]
    with database.begin() as connection:
        impression_rows.insert_impressions(connection, given)
        found = impression_rows.answers_to(connection, "u", None, 0, 10)
        assert found == [(30, ["c"]), (20, ["b"]), (10, ["a", "b"])]
        assert impression_rows.answers_to(connection, "u", "s", 10, 1) == [(30, ["c"])]
        assert impression_rows.answers_to(connection, None, "u", 0, 9) == [(40, ["a", "b"])]
        stored = impression_rows.get_impressions(connection, ["r1", "r3"])
    assert stored["r1"].items[0] == ImpressionItem("a", "lstm", 0.5)
    assert stored["r3"].items == (ImpressionItem("c", "explored", 0.1, 0.04),)
