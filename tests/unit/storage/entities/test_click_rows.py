"""Clicks attributed to answers."""

from dataclasses import replace

import pytest

from recsys.ingest.event_body import check_event, check_posted
from recsys.storage.entities import answer_count_rows, click_rows, event_rows, impression_rows
from recsys.storage.entities.impression_rows import Impression
from recsys.storage.schema.tables import events


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


def test_clicks_are_attributed_after_the_clock_was_ahead_for_a_while(database):
    minute, day = 60 * 10**6, 24 * 3_600 * 10**6
    now = 100 * day

    def attribute(at_us):
        with database.begin() as connection:
            click_rows.attribute_clicks(connection, at_us, 10 * minute, 100)

    def click(number, at_us):
        given = {"item_id": "a", "recommendation_id": f"r{number}", "user_id": "u"}
        one = check_event(given, at_us)
        answer = replace(an_answer(), recommendation_id=f"r{number}")
        with database.begin() as connection:
            impression_rows.insert_impressions(connection, [answer])
            event_rows.insert_events(connection, [one], at_us)

    click(1, now)
    attribute(now + day)
    click(2, now + 30 * minute)
    attribute(now + 31 * minute)
    click(3, now + 2 * day)
    attribute(now + 2 * day)
    with database.connect() as connection:
        assert all(click_rows.clicks_of(connection, f"r{number}") for number in (1, 2, 3))


@pytest.mark.parametrize("together", [True, False])
def test_what_a_page_tells_is_counted_apart_and_hides_nothing(database, together):
    """The page clicks first, on each item; the shop's server tells of one of them later."""
    by = ("arm",)

    def click(item, page):
        given = {"item_id": item, "recommendation_id": "r1", "session_id": "s"}
        with database.begin() as connection:
            event_rows.insert_events(connection, [check_posted(given, 5, page)], 5)

    def attribute():
        with database.begin() as connection:
            click_rows.attribute_clicks(connection, 10, 10, 100)

    def figures():
        with database.connect() as connection:
            every = answer_count_rows.counts(connection, 0, 1, by)
            trusted = answer_count_rows.counts(connection, 0, 1, by, pages_clicks=False)
            sources = answer_count_rows.counts(connection, 0, 1, ("source",))
        return (
            [(row["shown"], row["clicks"]) for row in (*every, *trusted)],
            {row["source"]: row["clicks"] for row in sources},
        )

    with database.begin() as connection:
        impression_rows.insert_impressions(connection, [an_answer()])
    click("a", True)
    click("b", True)
    if not together:
        attribute()
        assert figures() == ([(1, 1), (1, 0)], {"lstm": 1, "popular": 1})
    click("a", False)
    click("a", True)
    attribute()
    attribute()
    assert figures() == ([(1, 1), (1, 1)], {"lstm": 1, "popular": 1})
    with database.begin() as connection:
        assert len(click_rows.clicks_of(connection, "r1")) == 2
        click_rows.take_back(connection, events.c.event_id.not_like("from-page:%"))
    assert figures() == ([(1, 1), (1, 0)], {"lstm": 0, "popular": 1})
    with database.begin() as connection:
        click_rows.take_back(connection, events.c.event_id.like("from-page:%"))
    assert figures() == ([(1, 0), (1, 0)], {"lstm": 0, "popular": 0})
