"""When slots are due: daylight saving, clocks that step, misses, and times that cannot be."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from jobs.slots import slots
from recsys.config import load_settings
from recsys.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")


def made(job="retrain", **schedule):
    return slots(load_settings(schedule=schedule))[job]


def all_due(trigger, start, end):
    found, moment = [], start
    while (moment := trigger.next(moment)) is not None and moment <= end:
        found.append(moment)
    return found


@pytest.mark.parametrize("line", ["30 1 * * *", "30 2 * * *", "30 3 * * *", "0 0 * * *"])
@pytest.mark.parametrize("change", [datetime(2026, 3, 29), datetime(2026, 10, 25)], ids=str)
def test_a_daily_time_comes_once_a_day_when_clocks_change(line, change):
    trigger = made(retrain=line, timezone="Europe/Berlin")
    start = (change - timedelta(days=2, minutes=1)).replace(tzinfo=BERLIN)
    end = (change + timedelta(days=2, hours=23)).replace(tzinfo=BERLIN)
    found = all_due(trigger, start.astimezone(UTC), end.astimezone(UTC))
    days = [moment.astimezone(BERLIN).date() for moment in found]
    # A time that is skipped comes after the change, one that is repeated comes once.
    assert len(set(days)) == len(days) == 5
    assert trigger.last(start.astimezone(UTC), found[-1]) == found[-1]


def test_leap_day_and_year_end():
    trigger = made(retrain="0 3 29 2 *")
    assert trigger.next(datetime(2027, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, 3, tzinfo=UTC)
    yearly = made(retrain="59 23 31 12 *")
    assert yearly.last(
        datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)
    ) == datetime(2026, 12, 31, 23, 59, tzinfo=UTC)


def test_of_several_missed_the_last_counts():
    trigger = made(retrain="0 * * * *")
    since = datetime(2026, 1, 1, tzinfo=UTC)
    assert trigger.last(since, since + timedelta(hours=5, minutes=20)) == since + timedelta(hours=5)
    assert trigger.last(since, since + timedelta(minutes=59)) is None
    assert trigger.last(since, since - timedelta(hours=1)) is None  # a clock set back


def test_every_scheduler_has_the_same_slots():
    one, other = made("refresh", refresh_minutes=0.05), made("refresh", refresh_minutes=0.05)
    moment = datetime(2026, 5, 5, 5, 5, 5, 123456, tzinfo=UTC)
    assert one.next(moment) == other.next(moment) == moment.replace(second=6, microsecond=0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("retrain", "60 3 * * *"),
        ("retrain", "0 3 * *"),
        ("retrain", "0 3 31 2 *"),
        ("retrain", "nonsense"),
        ("tune", "0 0 0 0 0"),
        ("timezone", "Mars/Base"),
        ("timezone", "Europe"),
        ("timezone", ""),
    ],
)
def test_a_time_that_cannot_be_is_named(key, value):
    with pytest.raises(ConfigError, match=f"schedule.{key}"):
        made(**{key: value})


def test_tune_is_off_by_default():
    assert "tune" not in slots(load_settings())
    assert "tune" in slots(load_settings(schedule={"tune": "0 1 * * 0"}))
    assert "backup" not in slots(load_settings())
    assert "backup" in slots(load_settings(schedule={"backup": "0 1 * * *"}))
