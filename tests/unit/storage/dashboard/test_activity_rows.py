import pytest

from recsys.events.fields import Event
from recsys.events.times import DAY_US, HOUR_US
from recsys.serving.usage_counts import Activity
from recsys.storage.dashboard import activity_rows, quality_rows
from recsys.storage.dashboard.activity_rows import LATE_US
from recsys.storage.entities import event_rows
from recsys.web.admin.figures import quantile

NOW = 1_700_000_000_000_000 // DAY_US * DAY_US + 12 * HOUR_US


def post(database, times, received_us, user="u1", event_type="view"):
    events = [
        Event(
            user_id=user,
            session_id=None,
            item_id="i1",
            event_type=event_type,
            timestamp_us=time_us,
            event_id=None,
            value=None,
            recommendation_id=None,
            properties=None,
        )
        for time_us in times
    ]
    with database.begin() as connection:
        event_rows.insert_events(connection, events, received_us)


def counted(database):
    with database.connect() as connection:
        return (
            activity_rows.events_by_hour(connection, 0, 2**62),
            activity_rows.users_by_day(connection, 0, 2**62),
        )


def test_events_are_counted_by_hour_and_users_by_day(database):
    post(database, [NOW, NOW + 1, NOW - HOUR_US], NOW)
    post(database, [NOW], NOW, user="u2", event_type="purchase")
    assert activity_rows.count_events(database, NOW) == 1
    hours, days = counted(database)
    assert hours == [(NOW - HOUR_US, "view", 1), (NOW, "purchase", 1), (NOW, "view", 2)]
    assert days == [(NOW - 12 * HOUR_US, 2)]


def test_counting_again_changes_nothing_and_late_events_are_counted(database):
    post(database, [NOW, NOW - 40 * DAY_US], NOW)
    activity_rows.count_events(database, NOW + LATE_US + 1)
    before = counted(database)
    assert activity_rows.count_events(database, NOW + LATE_US + 2) == 0
    assert counted(database) == before
    post(database, [NOW - 40 * DAY_US + 5], NOW + 1, user="u3")
    assert activity_rows.count_events(database, NOW + LATE_US + 3) == 1
    hours, days = counted(database)
    assert hours == [(NOW - 40 * DAY_US, "view", 2), (NOW, "view", 1)]
    assert [users for _, users in days] == [2, 1]


def test_the_live_total_knows_what_came_since(database):
    post(database, [NOW, NOW + 1], NOW)
    activity_rows.count_events(database, NOW)
    post(database, [NOW + 2], NOW)
    with database.connect() as connection:
        total = activity_rows.event_total(connection)
    assert (total.events, total.exact) == (3, True)


def test_workers_add_up(database):
    workers = [Activity(database) for _ in range(2)]
    for worker in workers:
        for seconds in (0.004, 0.004, 0.2):
            worker.observe_latency("recommendations", seconds)
        worker.count("source", "lstm", 20)
        worker.close()
    with database.connect() as connection:
        for span in activity_rows.SPANS:
            rows = activity_rows.service_counts_by_slot(connection, "latency", span, 0, 2**62)
            assert sum(row[3] for row in rows) == 6
            histogram = {}
            for _, name, bucket, number in rows:
                assert name == "recommendations"
                histogram[bucket] = histogram.get(bucket, 0) + number
            assert histogram == {0.005: 4, 0.2: 2}
            assert 0.0025 < quantile(histogram, 0.5) <= 0.005 < quantile(histogram, 0.95) <= 0.2
            sources = activity_rows.service_counts_by_slot(connection, "source", span, 0, 2**62)
            assert sum(row[3] for row in sources) == 40


def test_fine_slots_go_before_coarse_ones(database):
    with database.begin() as connection:
        activity_rows.add_service_counts(connection, {(NOW, ("status", "2xx", 0.0)): 1})
        assert activity_rows.prune_service_counts(connection, NOW + 3 * DAY_US) == 1
        fine, hours, days = (
            activity_rows.service_counts_by_slot(connection, "status", span, 0, 2**62)
            for span in activity_rows.SPANS
        )
    assert fine == []
    assert hours == [(NOW, "2xx", 0.0, 1)]
    assert days == [(NOW - 12 * HOUR_US, "2xx", 0.0, 1)]


def test_growth_is_measured_over_days(database):
    with database.begin() as connection:
        assert quality_rows.growth(connection) is None
        quality_rows.put_size(connection, NOW, 0, 1_000_000)
        assert quality_rows.growth(connection).bytes_a_day is None
        quality_rows.put_size(connection, NOW + 2 * DAY_US, 200_000, 1_000_000)
        found = quality_rows.growth(connection)
    assert found.newest.database_bytes > 0
    assert found.bytes_a_day == pytest.approx(100_000, abs=50_000)
    assert found.days_left == pytest.approx(10, abs=5)
