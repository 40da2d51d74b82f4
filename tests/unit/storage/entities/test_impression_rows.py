"""Answers as rows, and their counts."""

from dataclasses import replace

from recsys.storage.entities import (
    answer_count_rows,
    impression_rows,
)
from recsys.storage.entities.impression_rows import Impression


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
