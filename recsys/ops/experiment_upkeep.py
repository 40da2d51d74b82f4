"""Experiments between answers: conversions counted, each hour's figures kept, old units deleted."""

from __future__ import annotations

from datetime import datetime

from recsys.config import Settings
from recsys.events.times import DAY_US, HOUR_US, MINUTE_US, to_us
from recsys.steering.event_value import ConversionRules
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.entities import experiment_rows, experiment_unit_rows
from recsys.storage.entities.experiment_unit_rows import LATE_US

ROWS = 5_000
OVERLAP_US = 10 * MINUTE_US


def follow(settings: Settings, database: Database, now: datetime) -> int:
    """Count new conversions and returns, and write down where each experiment stands; how many events were
    looked at.

    Units are kept for `serving.impression_days` after an experiment's end, but as long as late events
    count; its last figures stay.
    """
    now_us, rules = to_us(now), ConversionRules.of(settings.attribution)
    looked_at, last = 0, None
    while True:
        with database.begin() as connection:
            advisory_lock.lock_shared(
                connection
            )  # an erasure sees what is counted, or this that it is gone
            number, last = experiment_unit_rows.count_outcomes(
                connection, rules, now_us, OVERLAP_US, ROWS, last
            )
        looked_at += number
        if last is None:
            break
    kept_us = max(LATE_US, settings.serving.impression_days * DAY_US)
    with database.connect() as connection:
        there = experiment_rows.list_experiments(connection, 10_000)
    for one in there:
        end_us = one.stopped_at_us or now_us
        if one.state == "draft" or now_us - end_us > kept_us:
            if one.state == "stopped":
                _forget(database, one.name)
            continue
        if now_us - end_us <= LATE_US:
            with database.begin() as connection:
                experiment_unit_rows.put_look(connection, one.name, end_us - end_us % HOUR_US)
    return looked_at


def _forget(database: Database, name: str) -> None:
    more = True
    while more:
        with database.begin() as connection:
            more = experiment_unit_rows.forget_experiment(connection, name, ROWS) == ROWS
