"""Clicks attributed to answers."""

from dataclasses import replace

from recsys.ingest.event_body import check_event
from recsys.storage.entities import (
    click_rows,
    event_rows,
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
