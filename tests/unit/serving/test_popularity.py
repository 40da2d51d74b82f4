"""Popular items: one thread counts, a count that fails is not repeated at once."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys.config import Settings
from recsys.errors import SourceUnavailableError, StorageUnavailableError
from recsys.events.fields import Event
from recsys.events.times import MINUTE_US
from recsys.serving.popularity import KEEP_SECONDS, RETRY_SECONDS, Popularity
from recsys.storage.entities import event_rows
from recsys.storage.entities.own_events import OwnEvents

USERS = itertools.count()


class Source(OwnEvents):
    """The log of events, which can be slow or away; `counts` are those begun."""

    def __init__(self, database):
        super().__init__(Settings(), database)
        self.counts, self.away = 0, False
        self.asked, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()

    def popular_items(self, *asked):
        self.counts += 1
        self.asked.set()
        assert self.goes_on.wait(60)
        if self.away:
            raise SourceUnavailableError("the mapped event table is away")
        return super().popular_items(*asked)


@pytest.fixture
def source(database):
    return Source(database)


@pytest.fixture
def clock():
    return [1_000.0]


@pytest.fixture(params=["counts", "recent"])
def ask(request, database, source, clock):
    """What is popular as the clock stands, in both ways of asking."""
    popularity = Popularity(lambda: clock[0], source)

    def asked():
        now_us = round(clock[0] * 1e6)
        if request.param == "recent":
            return popularity.recent(database, now_us, 7)
        return popularity.counts(database, now_us, 7, None)

    view(database, "a")
    return asked


def view(database, item):
    event = Event(f"u{next(USERS)}", None, item, "view", MINUTE_US, None, None, None, None)
    with database.begin() as connection:
        event_rows.insert_events(connection, [event], 1)


def test_while_one_thread_counts_the_others_go_by_the_last_count(ask, database, source, clock):
    assert ask() == [("a", 1)]
    view(database, "a")
    assert ask() == [("a", 1)] and source.counts == 1
    clock[0] += KEEP_SECONDS
    source.asked.clear()
    source.goes_on.clear()
    with ThreadPoolExecutor(1) as other:
        counting = other.submit(ask)
        assert source.asked.wait(60)
        assert ask() == [("a", 1)]
        source.goes_on.set()
        assert counting.result() == [("a", 2)]
    assert ask() is counting.result()
    assert source.counts == 2


def test_the_first_count_is_waited_for(ask, source):
    source.goes_on.clear()
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(ask) for _ in range(4)]
        assert source.asked.wait(60)
        source.goes_on.set()
        assert [one.result() for one in answers] == [[("a", 1)]] * 4
    assert source.counts == 1


def test_a_count_that_fails_is_not_repeated_at_once(ask, source, clock):
    source.away = True
    for _ in range(3):
        with pytest.raises(StorageUnavailableError, match="mapped event table is away"):
            ask()
    assert source.counts == 1
    source.goes_on.clear()
    source.asked.clear()
    clock[0] += RETRY_SECONDS
    with ThreadPoolExecutor(1) as other:
        counting = other.submit(ask)
        assert source.asked.wait(60)
        with pytest.raises(StorageUnavailableError):  # at once, while the other waits
            ask()
        source.goes_on.set()
        assert isinstance(counting.exception(), StorageUnavailableError)
    source.away = False
    clock[0] += RETRY_SECONDS
    assert ask() == [("a", 1)]
    source.away = True
    for _ in range(3):
        clock[0] += KEEP_SECONDS
        assert ask() == [("a", 1)]
        assert ask() == [("a", 1)]
    assert source.counts == 6
