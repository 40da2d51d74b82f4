"""What the service did, recorded once and counted twice: for Prometheus and for the dashboard."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import structlog

from recsys.events.fields import Event
from recsys.serving.answers import Answer
from recsys.serving.usage_counts import Activity
from recsys.storage.entities.event_rows import PostedEvent
from recsys.web import prometheus_metrics

SIZES_SECONDS = 1.0  # between two looks at what the caches hold
log = structlog.get_logger(__name__)


# A metric's children by their labels, which are bounded: routes are rules, not addresses.
_requests = lru_cache(4_096)(prometheus_metrics.requests.labels)
_seconds = lru_cache(1_024)(prometheus_metrics.seconds.labels)
_arms = lru_cache(16)(prometheus_metrics.arms.labels)
_items = lru_cache(256)(prometheus_metrics.items.labels)


@dataclass(frozen=True)
class FinishedRequest:
    """A request that has been answered."""

    method: str
    route: str  # a rule such as /api/v1/jobs, or - where none matched
    status: int
    seconds: float
    of_api: bool  # whether it is of programs: its path begins with /api/ or /v1/
    key_id: str | None  # of the key it came with


@dataclass
class PostedOutcome:
    """What became of the events of one request, received at `now_us`."""

    now_us: int
    rejected: int = 0
    duplicates: int = 0
    # Of those accepted, by type: the seconds from an event's time to its receipt, at least 0.
    lags: dict[str, list[float]] = field(default_factory=dict)

    def note(self, event: Event, stored: PostedEvent) -> None:
        """Count one event that was stored, or was there before."""
        if stored.accepted:
            lag = max(0.0, (self.now_us - event.timestamp_us) / 1e6)
            self.lags.setdefault(event.event_type, []).append(lag)
        else:
            self.duplicates += 1

    @property
    def accepted(self) -> int:
        return sum(len(of_type) for of_type in self.lags.values())


class Usage:
    """Feeds Prometheus' figures and the dashboard's counts from the same records."""

    def __init__(self, activity: Activity, note_sizes: Callable[[], None] = lambda: None) -> None:
        """`note_sizes` is called every SIZES_SECONDS, so that every worker tells of what it holds,
        whichever is asked for /metrics.
        """
        self._activity = activity
        self._note_sizes = note_sizes
        self._sizes_due = 0.0  # by time.monotonic

    def finished(self, request: FinishedRequest) -> None:
        """Count one request, and log it."""
        if time.monotonic() >= self._sizes_due:
            self._sizes_due = time.monotonic() + SIZES_SECONDS
            self._note_sizes()
        (log.warning if request.status >= 500 else log.debug)(
            "request",
            method=request.method,
            route=request.route,
            status=request.status,
            ms=round(request.seconds * 1e3, 2),
        )
        _requests(request.method, request.route, request.status).inc()
        _seconds(request.route).observe(request.seconds)
        if not request.of_api:
            return
        self._activity.observe_latency(kind_of(request.route), request.seconds)
        self._activity.count("status", f"{request.status // 100}xx")
        if request.key_id is not None:
            self._activity.count("key", request.key_id)

    def answered(self, answer: Answer) -> None:
        """Count one recommendation answer: its items' sources, and why it was not the model's alone."""
        _arms(answer.arm or "none").inc()
        if not answer.items:
            prometheus_metrics.empty.inc()
        for source, number in Counter(item.source for item in answer.items).items():
            _items(source).inc(number)
            self._activity.count("source", source, number)
        if answer.fallback is not None:
            prometheus_metrics.fallbacks.labels(answer.fallback).inc()
            self._activity.count("fallback", answer.fallback)

    def posted(self, outcome: PostedOutcome) -> None:
        """Count the events of one request."""
        outcomes = {
            "accepted": outcome.accepted,
            "duplicate": outcome.duplicates,
            "rejected": outcome.rejected,
        }
        for name, number in outcomes.items():
            if number:
                prometheus_metrics.events.labels(name).inc(number)
                self._activity.count("posted", name, number)
        for event_type, of_type in outcome.lags.items():
            prometheus_metrics.observe_lags(event_type, of_type)
            self._activity.observe_lags(of_type)


# By a part of a route's rule; the last that is there counts. Those of one item and on are Gorse's.
_KINDS = {
    **{name: name for name in ("recommendations", "events", "items")},
    **{"item": "items", "feedback": "events"},
    **{"recommend": "recommendations", "collaborative-filtering": "recommendations"},
}


def kind_of(route: str) -> str:
    """What a route is about, for the dashboard's figures.

    >>> kind_of("/api/v1/users/<id:user_id>/recommendations"), kind_of("/api/v1/jobs")
    ('recommendations', 'other')
    """
    named = [_KINDS[part] for part in route.split("/") if part in _KINDS]
    return named[-1] if named else "other"
