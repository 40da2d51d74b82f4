"""Writes of concurrent requests, in one transaction."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event as listen
from sqlalchemy import func, select

from recsys.errors import InputError, StorageUnavailableError
from recsys.events.fields import Event
from recsys.storage.engine.database import Database
from recsys.storage.engine.group_commit import GroupCommit
from recsys.storage.entities import event_rows
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events


def storing(name):
    """Work that stores an event; where it is called 'bad' it fails once it has."""

    def work(connection):
        event_rows.insert_events(connection, [Event("u", None, name, "view", 1)], 1)
        if name == "bad":
            raise InputError("item_id", name, "expected another")
        return name

    return work


def stored(database):
    with database.connect() as connection:
        return set(connection.execute(select(events.c.item_id)).scalars())


@pytest.fixture
def together(database):
    """together(work, ...): outcomes of writes that all wait for one that is under way; commits."""
    writes = GroupCommit(database)
    commits = []
    listen.listen(database.engine, "commit", commits.append)

    def run(*work):
        begun, go_on = threading.Event(), threading.Event()

        def first(_):
            begun.set()
            assert go_on.wait(30)

        def outcome(one):
            try:
                return writes.write(one)
            except Exception as error:
                return type(error)

        with ThreadPoolExecutor(len(work) + 1) as pool:
            leading = pool.submit(writes.write, first)
            assert begun.wait(30)
            others = [pool.submit(outcome, one) for one in work]
            if database.dialect == "sqlite":
                while len(writes._waiting) < len(work):
                    threading.Event().wait(0.001)
            go_on.set()
            leading.result()
            return [one.result() for one in others], len(commits) - 1

    return run


def test_what_waits_goes_into_one_transaction(database, together):
    outcomes, commits = together(*map(storing, "abc"))
    assert outcomes == ["a", "b", "c"]
    assert stored(database) == {"a", "b", "c"}
    assert commits == (1 if database.dialect == "sqlite" else 3)


def test_one_that_fails_fails_alone(database, together):
    outcomes, _ = together(storing("a"), storing("bad"), storing("c"))
    assert outcomes == ["a", InputError, "c"]
    assert stored(database) == {"a", "c"}


def test_a_locked_file_fails_all_that_wait_at_once(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    holder, other = Database(url), Database(url, busy_timeout_seconds=0.1)
    migrate.upgrade(holder)
    writes = GroupCommit(other)
    with holder.begin(), ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(writes.write, storing(name)) for name in "abc"]
        assert all(isinstance(one.exception(), StorageUnavailableError) for one in waiting)
    assert writes.write(storing("d")) == "d"
    with other.connect() as connection:
        assert connection.execute(select(func.count()).select_from(events)).scalar() == 1
