"""Statements that go on after a table was altered."""

from __future__ import annotations

from typing import Any, Self

from psycopg import Cursor
from psycopg.errors import FeatureNotSupported
from psycopg.pq import TransactionStatus


class RenewingCursor(Cursor[Any]):
    """A cursor that prepares a statement again where its table's columns have changed since.

    PostgreSQL refuses such a statement once ("cached plan must not change result type"): a service that
    reads while a migration runs, or while somebody alters a mapped table, would fail requests for it, for the
    driver keeps the plan. A transaction that is refused cannot go on, so there the error stands; its
    ROLLBACK makes the driver forget its plans.
    """

    def execute(self, *args: Any, **options: Any) -> Self:
        try:
            return super().execute(*args, **options)
        except FeatureNotSupported:
            if self.connection.info.transaction_status != TransactionStatus.IDLE:
                raise
            self.connection.execute("DEALLOCATE ALL")
            return super().execute(*args, **options)
