"""The past events of a request."""

from types import SimpleNamespace

from recsys.config import Settings
from recsys.events.fields import Event
from recsys.serving.answers import Request
from recsys.serving.history import EXTRA_HISTORY, MergedKeys, past_events, past_read
from recsys.storage.entities import event_rows
from recsys.storage.entities.own_events import OwnEvents

LENGTH = 20


def event(item, at, kind="view", user="u", session=None):
    return Event(user, session, item, kind, at)


def test_what_the_model_reads_is_found_behind_what_it_does_not(database):
    bundle = SimpleNamespace(max_length=LENGTH, input_event_types=("cart", "purchase"))
    views = [event(f"v{n}", 1_000 + n) for n in range(3 * (LENGTH + EXTRA_HISTORY))]
    bought = [event(f"p{n}", n, "purchase") for n in range(30)]
    with database.begin() as connection:
        event_rows.insert_events(connection, [*bought, *views, event("c", 5_000, "cart")], 1)
    source = OwnEvents(Settings(), database)
    with database.connect() as connection:
        request = Request(user_id="u", k=5)
        found, degraded = past_events(connection, request, bundle, source, MergedKeys(), 1)
        assert [e.item_id for e in past_read(bundle, found.events)] == [
            *(f"p{n}" for n in range(11, 30)),
            "c",
        ]
        assert found.events[-1].item_id == "c" and degraded is None
        assert not found.complete  # items bought before are looked for on their own
        times = [e.timestamp_us for e in found.events]
        assert times == sorted(times) and len(set(found.events)) == len(found.events)


def test_a_history_that_is_read_whole_is_read_once(database, monkeypatch):
    bundle = SimpleNamespace(max_length=LENGTH, input_event_types=("purchase",))
    with database.begin() as connection:
        event_rows.insert_events(connection, [event("p", 1, "purchase"), event("v", 2)], 1)
    source, reads = OwnEvents(Settings(), database), []
    read = source.history
    monkeypatch.setattr(source, "history", lambda *asked: reads.append(1) or read(*asked))
    with database.connect() as connection:
        request = Request(user_id="u", k=5)
        found, _ = past_events(connection, request, bundle, source, MergedKeys(), 1)
    assert [e.item_id for e in found.events] == ["p", "v"] and reads == [1]
