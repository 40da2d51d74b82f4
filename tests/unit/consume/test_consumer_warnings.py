"""What the log says of a broker that does not answer: at once, and again while it lasts."""

import threading
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from recsys.consume.consumer import Consumer
from recsys.ingest.streams.broker import BrokerUnavailableError


class Shares:
    """Of a source that nobody else reads."""

    source, topics, lease_seconds, seconds_left, is_due = "orders", ("clicks",), 30.0, 30.0, True

    def look(self, *_given):
        return {}

    def look_soon(self):
        pass


@pytest.fixture
def failing(monkeypatch):
    """fail(reason, at): one step at that second, which the broker fails for that reason."""
    now = [0.0]
    consumer = Consumer(None, None, Shares(), None, clock=lambda: now[0])
    stop = SimpleNamespace(wait=lambda _seconds: None, is_set=threading.Event().is_set)

    def fail(reason, at):
        def step(_stop):
            raise BrokerUnavailableError(reason)

        now[0] = float(at)
        monkeypatch.setattr(consumer, "step", step)
        with capture_logs() as lines:
            consumer._try_step(stop)
        return [(one["event"], one["reason"], one.get("seconds")) for one in lines]

    return fail


def test_a_failure_that_lasts_is_told_again_each_minute_and_when_its_reason_changes(failing):
    assert failing("no such host", 0) == [("consuming stopped", "no such host", None)]
    assert failing("no such host", 30) == []
    assert failing("no such host", 60) == [("still not consuming", "no such host", 60)]
    assert failing("no such host", 119) == []
    assert failing("refused", 119) == [("still not consuming", "refused", 119)]
    assert failing("refused", 150) == []
    assert failing("refused", 179) == [("still not consuming", "refused", 179)]
