"""Cron lines mean what they mean in every crontab, told by a second implementation (cronsim)."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.crontab import FIELDS, MONTHS, NICKNAMES, WEEKDAYS, Crontab
from jobs.slots import slots
from recsys.config import load_settings
from recsys.errors import ConfigError

# Not Lord Howe, whose clocks change by half an hour: cronsim goes by whole ones.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
CHANGES = (
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),  # New York
    datetime(2026, 11, 1, 6, tzinfo=UTC),
)


@st.composite
def parts(draw, bounds):
    """One part of a field: a value, a name, a range, a step."""
    kind = draw(st.sampled_from(["value", "value", "range", "step", "star"]))
    if kind == "star":
        return f"*/{draw(st.integers(1, bounds.last - bounds.first))}"
    value = draw(st.integers(bounds.first, bounds.last))
    if kind == "value":
        if bounds.names and value - bounds.first < len(bounds.names) and draw(st.booleans()):
            return draw(st.sampled_from([str.upper, str.lower]))(bounds.names[value - bounds.first])
        return str(value)
    if value == bounds.last:
        value -= 1
    last = draw(st.integers(value + 1, bounds.last))
    if kind == "step" and draw(st.booleans()):
        return f"{value}/{draw(st.integers(1, bounds.last - value))}"
    return f"{value}-{last}" + (f"/{draw(st.integers(1, last - value))}" if kind == "step" else "")


@st.composite
def lines(draw):
    fields = []
    for bounds in FIELDS:
        listed = st.lists(parts(bounds), min_size=1, max_size=3).map(",".join)
        fields.append(draw(st.one_of(st.just("*"), listed)))
    return " ".join(fields)


moments = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)),
    st.builds(
        lambda change, minutes: change + timedelta(minutes=minutes),
        st.sampled_from(CHANGES),
        st.integers(-400, 400),
    ),
)


def retrain(line, zone="UTC"):
    return slots(load_settings(schedule={"retrain": line, "timezone": zone}))["retrain"]


def by_cronsim(line, moment, zone, count):
    """The next times; what a change of clocks makes coincide, once, and never before `moment`."""
    found = []
    for at in CronSim(line, moment.astimezone(ZoneInfo(zone)) - timedelta(hours=6)):
        utc = at.astimezone(UTC)
        if utc > moment and utc not in found:
            found.append(utc)
        if len(found) == count:
            return found
    return found


@settings(deadline=None, max_examples=60)
@given(lines(), moments, st.sampled_from(ZONES))
@example("0 3 * * 0", datetime(2026, 5, 5, tzinfo=UTC), "UTC")
@example("0 3 * * 7", datetime(2026, 5, 5, tzinfo=UTC), "UTC")
@example("0 3 1 * 1", datetime(2026, 5, 5, tzinfo=UTC), "UTC")
@example("30 2 * * *", CHANGES[0] - timedelta(minutes=5), "Europe/Berlin")
@example("30 2 * * *", CHANGES[1] - timedelta(minutes=50), "Europe/Berlin")
@example("*/20 * * * *", CHANGES[1] - timedelta(minutes=50), "Europe/Berlin")
@example("*/20 2 * * *", CHANGES[0] - timedelta(minutes=50), "Europe/Berlin")
def test_the_next_times_are_those_of_a_second_implementation(line, moment, zone):
    try:
        wanted = by_cronsim(line, moment, zone, 4)
    except Exception:  # a day that no month has
        wanted = []
    if not wanted:
        with pytest.raises(ConfigError):
            retrain(line, zone)
        return
    found, at = [], moment
    own = retrain(line, zone)
    for _ in wanted:
        at = own.next(at)
        found.append(at)
    assert found == wanted, line


def test_sunday_is_0_and_7_and_ends_a_week():
    sunday = Crontab.parse("0 3 * * sun")
    assert Crontab.parse("0 3 * * 0") == Crontab.parse("0 3 * * 7") == sunday
    assert Crontab.parse("0 3 * * fri-sun").weekdays == {5, 6, 0}
    assert Crontab.parse("0 3 * * 5-7") == Crontab.parse("0 3 * * fri-sun")
    assert Crontab.parse("@weekly") == Crontab.parse("0 0 * * sun")
    assert len(MONTHS) == 12 and len(WEEKDAYS) == 7
    for nickname, line in NICKNAMES.items():
        assert Crontab.parse(nickname) == Crontab.parse(line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("60 * * * *", "minute: '60' is not 0 to 59"),
        ("0 24 * * *", "hour"),
        ("0 0 0 * *", "day of month"),
        ("0 0 * 13 *", "month: '13' is not 1 to 12 or jan to dec"),
        ("0 0 * * 8", "day of week: '8' is not 0 to 7 or sun to sat"),
        ("0 0 * * monday", "day of week"),
        ("0 0 * * fri-mon", "ends before it begins"),
        ("0 22-2 * * *", "ends before it begins"),
        ("*/0 * * * *", "step"),
        ("*/90 * * * *", "leads out of its range"),
        ("*/x * * * *", "step"),
        ("0 0 ? * *", "day of month"),
        ("0 0 L * *", "day of month"),
        ("0 0 * * 1#2", "day of week"),
        ("0, 3 * * *", "minute"),
        ("0 0 0 * * *", "not 6"),
        ("@reboot", "five fields or one of @yearly"),
        ("", "not 0"),
        ("٣ * * * *", "minute"),
    ],
)
def test_a_line_that_no_crontab_takes_names_its_field(line, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Crontab.parse(line)
