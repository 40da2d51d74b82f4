"""What the service did is counted for Prometheus and for the dashboard alike."""

from contextlib import closing

import pytest
from prometheus_client import REGISTRY

from recsys.serving.usage_counts import Activity
from recsys.storage.schema.tables import service_counts
from recsys.web.usage import FinishedRequest, PostedEvent, Usage


@pytest.fixture
def counted(database):
    """counted(act): what acting on a Usage adds, (name, labels) -> number and (kind, name) -> number."""

    def count(act):
        before = figures()
        with closing(Activity(database)) as activity:
            act(Usage(activity))
            activity.flush()
        added = {key: value - before.get(key, 0.0) for key, value in figures().items()}
        with database.connect() as connection:
            rows = (
                connection.execute(
                    service_counts.select().where(service_counts.c.span_seconds == 300)
                )
                .mappings()
                .all()
            )
        stored: dict[tuple[str, str], int] = {}
        for row in rows:
            key = (row["kind"], row["name"])
            stored[key] = stored.get(key, 0) + row["number"]
        return {key: value for key, value in added.items() if value}, stored

    return count


def figures():
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name.startswith("recsys_") and sample.name.endswith(("_total", "_count"))
    }


def test_a_request_of_the_api_is_counted_in_both(counted):
    route = "/api/v1/users/<id:user_id>/recommendations"
    added, stored = counted(
        lambda usage: usage.finished(FinishedRequest("GET", route, 200, 0.004, True, "k1"))
    )
    labels = (("method", "GET"), ("route", route), ("status", "200"))
    assert added["recsys_requests_total", labels] == 1
    assert added["recsys_request_seconds_count", (("route", route),)] == 1
    assert stored == {("latency", "recommendations"): 1, ("status", "2xx"): 1, ("key", "k1"): 1}


def test_any_other_request_is_prometheus_alone(counted):
    added, stored = counted(
        lambda usage: usage.finished(FinishedRequest("GET", "/docs", 200, 0.004, False, None))
    )
    assert added["recsys_request_seconds_count", (("route", "/docs"),)] == 1
    assert stored == {}


def test_posted_events_are_counted_by_what_became_of_them(counted):
    events = [PostedEvent("view", "accepted", 0.2), PostedEvent("view", "duplicate", 0.2)]
    added, stored = counted(lambda usage: usage.posted(events, 3))
    for outcome, number in (("accepted", 1), ("duplicate", 1), ("rejected", 3)):
        assert added["recsys_events_total", (("outcome", outcome),)] == number
        assert stored["posted", outcome] == number
    assert added["recsys_ingestion_lag_seconds_count", (("event_type", "view"),)] == 1
    assert stored["lag", ""] == 1
