"""What the service did is counted for Prometheus and for the dashboard alike."""

from contextlib import closing

import pytest
from prometheus_client import REGISTRY

from recsys.events.fields import Event
from recsys.serving.usage_counts import Activity
from recsys.storage.entities.event_rows import PostedEvent
from recsys.storage.schema.tables import service_counts
from recsys.web import prometheus_metrics
from recsys.web.usage import FinishedRequest, PostedOutcome, Usage


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
    lags = {"view": [0.0, 0.1, 0.2, 10.0, 1e9], "cart": [5.0]}
    outcome = PostedOutcome(now_us=5, rejected=3)
    for event_type, of_type in lags.items():
        for lag in of_type:
            event = Event("u", None, "i", event_type, 5 - round(lag * 1e6))
            outcome.note(event, PostedEvent("e", accepted=True))
    late = Event("u", None, "i", "view", 7)
    for _ in range(2):
        outcome.note(late, PostedEvent("e", accepted=False))
    assert (outcome.accepted, outcome.duplicates, outcome.lags) == (6, 2, lags)
    added, stored = counted(lambda usage: usage.posted(outcome))
    for outcome, number in (("accepted", 6), ("duplicate", 2), ("rejected", 3)):
        assert added["recsys_events_total", (("outcome", outcome),)] == number
        assert stored["posted", outcome] == number
    for event_type, number in (("view", 5), ("cart", 1)):
        assert added["recsys_ingestion_lag_seconds_count", (("event_type", event_type),)] == number
    assert stored["lag", ""] == 6


def test_lags_of_a_request_count_as_each_observed_alone():
    seconds = [0.0, 0.1, 0.1000001, 3.0, 604_800.0, 1e9]
    prometheus_metrics.observe_lags("together", seconds)
    for one in seconds:
        prometheus_metrics.lag.labels("alone").observe(one)

    def found(event_type):
        return {
            (sample.name, sample.labels.get("le")): sample.value
            for sample in prometheus_metrics.lag.labels(event_type).collect()[0].samples
            if not sample.name.endswith("_created")
        }

    assert found("together") == found("alone")
