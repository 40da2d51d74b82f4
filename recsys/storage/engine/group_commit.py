"""Writes of concurrent requests in one transaction, each told once that is committed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from recsys.errors import StorageUnavailableError
from recsys.storage.engine.database import Connection, Database

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Write:
    work: Callable[[Connection], Any]
    outcome: Future[Any] = field(default_factory=Future)


class GroupCommit:
    """The writes of one process that come while a transaction is under way go into the next one together.

    On SQLite, which has one writer at a time and syncs at each commit. PostgreSQL's transactions go side
    by side, and its server syncs the commits of several at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Write] = deque()  # the oldest first
        self._turn = threading.Lock()

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """What `work` returns, once it is committed.

        Where a transaction of several fails, each is tried in one of its own, so `work` may be called
        twice; it changes nothing but the database. Raises what `work` raises, and as `Database.begin`.
        """
        if self._database.dialect != "sqlite":
            with self._database.begin() as connection:
                return work(connection)
        mine = _Write(work)
        self._waiting.append(mine)
        with self._turn:
            if not mine.outcome.done():
                self._commit([self._waiting.popleft() for _ in range(len(self._waiting))])
        found: Result = mine.outcome.result()
        return found

    def _commit(self, group: list[_Write]) -> None:
        try:
            with self._database.begin() as connection:
                found = [one.work(connection) for one in group]
        except Exception as error:
            if len(group) > 1 and not isinstance(error, StorageUnavailableError):
                for one in group:
                    self._commit([one])
                return
            for one in group:
                one.outcome.set_exception(error)
        else:
            for one, result in zip(group, found, strict=True):
                one.outcome.set_result(result)
