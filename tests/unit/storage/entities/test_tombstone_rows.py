"""Tombstones of erased users."""

from recsys.storage.entities import (
    erasure_rows,
    tombstone_rows,
)
from recsys.storage.entities.impression_rows import Impression


def test_an_answer_of_someone_erased_meanwhile_is_not_stored(database):
    def answer(name, user, session):
        return Impression(name, 1, user, session, "v", None, None, (("a", "lstm", 0.5),))

    answers = [answer("r1", "gone", "s1"), answer("r2", "here", "s1"), answer("r3", None, None)]
    with database.begin() as connection:
        erasure_rows.erase(connection, "gone", 1)
    with database.begin() as connection:
        left = tombstone_rows.without_erased(connection, answers)
        assert [one.recommendation_id for one in left] == ["r2", "r3"]
