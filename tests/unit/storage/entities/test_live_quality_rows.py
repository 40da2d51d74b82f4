from recsys.events.times import DAY_US, HOUR_US
from recsys.storage.entities import live_quality_rows
from recsys.storage.entities.live_quality_rows import ENOUGH, KEPT_DAYS, LEAST, LiveQuality

NOON_US = 20_000 * DAY_US + 12 * HOUR_US


def hour(back, positions=100, live=60, popular=10):
    at_us = NOON_US - back * HOUR_US
    return LiveQuality(at_us, positions, 5, live, live / 2, 40, 20.0, popular, popular / 4)


def put(database, *hours):
    with database.begin() as connection:
        for one in hours:
            live_quality_rows.put_hour(connection, one)


def test_hours_are_kept_as_they_were_put_and_put_anew(database):
    put(database, hour(2), hour(1), hour(2, 50, 25))
    with database.connect() as connection:
        found = live_quality_rows.hours_between(connection, 0, NOON_US)
        assert found == [hour(2, 50, 25), hour(1)]
        assert live_quality_rows.hours_between(connection, NOON_US - HOUR_US, NOON_US) == [hour(1)]


def test_hours_add_up_and_figures_are_shares_of_positions():
    whole = hour(2, 50, 30) + hour(1)
    assert (whole.hour_us, whole.positions, whole.unknown) == (NOON_US - 2 * HOUR_US, 150, 10)
    assert (whole.recall("live"), whole.mrr("live")) == (0.6, 0.3)
    assert (whole.recall("popular"), whole.mrr("still")) == (20 / 150, 40 / 150)
    nothing = LiveQuality(0)
    assert nothing.recall("live") is nothing.mrr("live") is nothing.unknown_share is None


def test_old_hours_go(database):
    put(database, hour(KEPT_DAYS * 24), hour(KEPT_DAYS * 24 - 1), hour(-1))
    with database.connect() as connection:
        left = live_quality_rows.hours_between(connection, 0, 2 * NOON_US)
    assert [(NOON_US - one.hour_us) // HOUR_US for one in left] == [KEPT_DAYS * 24 - 1, -1]


def test_the_newest_hour_without_a_row_is_the_next(database):
    put(database, hour(1), hour(3))
    with database.connect() as connection:
        for since, until, back in ((9, 0, 2), (3, 0, 2), (9, 1, 2), (9, 2, 4), (2, 1, 2)):
            span = (NOON_US - since * HOUR_US, NOON_US - until * HOUR_US)
            found = live_quality_rows.newest_missing(connection, *span)
            assert found == NOON_US - back * HOUR_US, span
        assert live_quality_rows.newest_missing(connection, NOON_US - HOUR_US, NOON_US) is None
        part = NOON_US + HOUR_US // 2  # of the hour under way
        assert live_quality_rows.newest_missing(connection, NOON_US - HOUR_US, part) is None


def test_of_late_are_enough_positions_of_the_last_day_at_most(database):
    with database.connect() as connection:
        assert live_quality_rows.of_late(connection, NOON_US) is None
    put(database, hour(1, 0, 0, 0), hour(2), hour(3), hour(25))
    with database.connect() as connection:
        assert live_quality_rows.of_late(connection, NOON_US) == hour(3) + hour(2)
    put(database, hour(1, ENOUGH - 150))
    with database.connect() as connection:
        found = live_quality_rows.of_late(connection, NOON_US)
        assert found.positions == ENOUGH + 50
        assert live_quality_rows.of_late(connection, NOON_US + 9 * DAY_US) is None


def test_popular_is_better_where_enough_positions_say_so():
    assert hour(1, LEAST, live=9, popular=10).falls_below_popular
    assert not hour(1, LEAST, live=10, popular=10).falls_below_popular
    assert not hour(1, LEAST - 1, live=9, popular=10).falls_below_popular
