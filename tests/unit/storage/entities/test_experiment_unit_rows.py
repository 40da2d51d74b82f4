"""What units did in experiments, beside the same counted from raw rows."""

from dataclasses import replace

import pytest
from sqlalchemy import select, text

from recsys.events.times import MINUTE_US
from recsys.ingest.event_body import check_event
from recsys.steering.event_value import ConversionRules
from recsys.steering.experiment_report import UnitSums
from recsys.steering.experiment_spec import read_experiment
from recsys.storage.entities import (
    click_rows,
    erasure_rows,
    event_rows,
    experiment_rows,
    experiment_unit_rows,
    impression_rows,
)
from recsys.storage.entities.impression_rows import Impression
from recsys.storage.schema.tables import events, experiment_outcomes, experiment_testers

RULES = ConversionRules(frozenset({"purchase"}), frozenset({"refund"}))
NOW = 1_000 * MINUTE_US
NAME = "trial"
SPEC = read_experiment({"arms": [{"name": "now"}, {"name": "new", "hold_out": True}]})

# Of raw rows, a unit at a time: whatever was kept on the way is not looked at.
SLOW = text("""
WITH shown AS (
  SELECT recommendation_id, created_at_us,
         CASE WHEN user_id IS NOT NULL THEN 'u:' || user_id ELSE 's:' || session_id END AS unit,
         CASE WHEN experiments LIKE '%"new"%' THEN 'new' ELSE 'now' END AS arm
  FROM impressions WHERE experiments LIKE '%"trial"%'
), units AS (
  SELECT unit, min(arm) AS arm, min(created_at_us) AS since, count(*) AS answers,
         sum(CASE WHEN recommendation_id IN (SELECT recommendation_id FROM attributed_clicks)
             THEN 1 ELSE 0 END) AS clicks
  FROM shown GROUP BY unit
), outcomes AS (
  SELECT units.unit, CASE WHEN event_type = 'purchase' THEN 1 ELSE 0 END AS bought,
         CASE WHEN event_type = 'purchase' THEN value ELSE -value END AS worth
  FROM events JOIN units ON unit = CASE
    WHEN EXISTS (SELECT 1 FROM units AS other
                 WHERE other.unit = 'u:' || events.user_id AND other.since <= events.timestamp_us)
    THEN 'u:' || events.user_id ELSE 's:' || events.session_id END
  WHERE event_type IN ('purchase', 'refund') AND timestamp_us BETWEEN since AND :until
), whole AS (
  SELECT arm, units.unit, answers, clicks,
         coalesce((SELECT sum(bought) FROM outcomes WHERE outcomes.unit = units.unit), 0) AS n,
         coalesce((SELECT sum(worth) FROM outcomes WHERE outcomes.unit = units.unit), 0) AS v
  FROM units
)
SELECT arm, count(*), sum(answers), sum(answers * answers), sum(clicks), sum(clicks * clicks),
       sum(answers * clicks), sum(CASE WHEN n > 0 THEN 1 ELSE 0 END), sum(n), sum(v), sum(v * v)
FROM whole GROUP BY arm
""")


@pytest.fixture
def trial(database):
    with database.begin() as connection:
        experiment_rows.put_draft(connection, NAME, SPEC, "me", 1)
        experiment_rows.change(connection, NAME, state="running", started_at_us=1)
    return Trial(database)


class Trial:
    """A shop with an experiment."""

    def __init__(self, database):
        self.database, self.number = database, 0

    def answer(self, arm, at, user=None, session=None):
        self.number += 1
        one = Impression(
            *(f"r{self.number}", at * MINUTE_US, user, session, "v", "champion", None),
            items=(("a", "lstm", 0.5), ("b", "lstm", 0.1)),
            experiments={NAME: arm},
        )
        with self.database.begin() as connection:
            impression_rows.insert_impressions(connection, [one])
            impression_rows.insert_impressions(connection, [one])  # sent twice, counted once
        return one.recommendation_id

    def event(self, kind, at, value=None, received=None, **owner):
        given = {"item_id": "a", "event_type": kind, "value": value, **owner}
        given = {name: one for name, one in given.items() if one is not None}
        at_us = at * MINUTE_US
        received_us = at_us if received is None else received * MINUTE_US
        one = replace(check_event(given, received_us), timestamp_us=at_us)
        with self.database.begin() as connection:
            event_rows.insert_events(connection, [one], received_us)

    def follow(self, at):
        with self.database.begin() as connection:
            click_rows.attribute_clicks(connection, at * MINUTE_US, 10 * MINUTE_US, 100)
            last = None
            for _ in range(100):  # batches of two
                _, last = experiment_unit_rows.count_outcomes(
                    connection, RULES, at * MINUTE_US, 10 * MINUTE_US, 2, last
                )
                if last is None:
                    return
        raise AssertionError("it goes on and on")

    def sums(self, until=NOW):
        """As kept, which is as counted from raw rows."""
        with self.database.connect() as connection:
            kept = experiment_unit_rows.sums(connection, NAME)
            slow = connection.execute(SLOW, {"until": until}).all()
        assert kept == {arm: UnitSums(*map(float, figures)) for arm, *figures in slow}
        return kept


def test_figures_are_those_of_raw_rows_however_late_events_come(trial):
    first = trial.answer("now", 10, user="u1")
    trial.answer("now", 20, user="u1")
    second = trial.answer("new", 12, session="s1")
    trial.answer("new", 14, user="u2", session="s1")
    trial.event("purchase", 5, 100.0, user_id="u1")  # before
    trial.event("purchase", 11, 20.0, user_id="u1")
    trial.event("refund", 15, 5.0, user_id="u1")
    trial.event("purchase", 16, 7.0, user_id="u2", session_id="s1")  # of the user, once
    trial.event("purchase", 17, 3.0, session_id="s1")
    trial.event("purchase", 17, 50.0, user_id="stranger")
    trial.event("view", 21, recommendation_id=first, user_id="u1")
    trial.event("view", 22, recommendation_id=first, user_id="u1")
    trial.event("view", 22, recommendation_id=second, session_id="s1")
    trial.follow(30)
    trial.follow(31)
    assert trial.sums() == {
        "now": UnitSums(1, 2, 4, 1, 1, 2, 1, 1, 15.0, 225.0),
        "new": UnitSums(2, 2, 2, 1, 1, 1, 2, 2, 10.0, 58.0),
    }
    trial.event("purchase", 18, 9.0, received=300, user_id="u2")  # told five hours later
    trial.answer("new", 301, user="late")
    trial.event("purchase", 299, 4.0, received=302, user_id="late")
    trial.follow(303)
    trial.answer("new", 298, user="late")  # stored after what followed it
    trial.follow(305)
    assert trial.sums()["new"].value == 10.0 + 9.0 + 4.0


def test_what_is_taken_back_or_erased_is_in_no_figure(trial):
    for number in range(4):
        shown = trial.answer("now", 10, user=f"u{number}")
        trial.event("purchase", 11, 10.0, user_id=f"u{number}")
        trial.event("view", 12, recommendation_id=shown, user_id=f"u{number}")
    trial.follow(20)
    with trial.database.begin() as connection:
        experiment_rows.put_tester(connection, NAME, "u:u1", "new")
        chosen = events.c.user_id == "u0"
        click_rows.take_back(connection, chosen)
        experiment_unit_rows.take_back(connection, chosen)
        connection.execute(events.delete().where(chosen))
        experiment_unit_rows.read_again_from(connection)
    assert trial.sums()["now"] == UnitSums(4, 4, 4, 3, 3, 3, 3, 3, 30.0, 300.0)
    with trial.database.begin() as connection:
        assert len(experiment_unit_rows.units_of(connection, ["u:u1"])) == 1
        gone = erasure_rows.erase(connection, "u1", NOW)
        assert gone["experiments"] == 1
    with trial.database.connect() as connection:
        assert experiment_unit_rows.units_of(connection, ["u:u1"]) == []
        assert connection.execute(select(experiment_testers)).all() == []
        assert len(connection.execute(select(experiment_outcomes)).all()) == 2
    trial.event("purchase", 21, 1.0, user_id="u3")  # in SQLite with a number that was given before
    trial.follow(22)
    assert trial.sums()["now"].value == 21.0


def test_nothing_after_the_end_counts_and_the_last_look_outlives_the_units(trial):
    trial.answer("now", 10, user="u1")
    trial.event("purchase", 20, 5.0, user_id="u1")
    trial.event("purchase", 40, 5.0, user_id="u1")
    with trial.database.begin() as connection:
        experiment_rows.change(connection, NAME, state="stopped", stopped_at_us=30 * MINUTE_US)
    trial.follow(60)
    before = trial.sums(until=30 * MINUTE_US)
    assert before["now"].value == 5.0
    with trial.database.begin() as connection:
        experiment_unit_rows.put_look(connection, NAME, 0)
        experiment_unit_rows.put_look(connection, NAME, 0)
        assert experiment_unit_rows.forget_experiment(connection, NAME, 10) == 1
        assert connection.execute(select(experiment_outcomes)).all() == []
        assert experiment_unit_rows.sums(connection, NAME) == before
        assert experiment_unit_rows.looks(connection, NAME, 10) == [(0, before)]
