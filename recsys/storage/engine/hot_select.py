"""Short SELECTs without most of what they cost."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.engine import Compiled
from sqlalchemy.exc import DBAPIError


class HotSelect:
    """A SELECT that every request runs: compiled once for each dialect, run by the driver itself.

    That spares most of what a short statement costs. Values come back as the driver gives them.
    """

    def __init__(self, statement: Select[Any], postgresql: Select[Any] | None = None) -> None:
        """`statement` holds its values as named bind parameters; `postgresql` stands in for it there."""
        self._statement, self._postgresql = statement, postgresql
        self._compiled: dict[str, tuple[Compiled, str, Any]] = {}

    def __call__(self, connection: Connection, **values: object) -> list[tuple[Any, ...]]:
        """The rows. Raises DBAPIError as SQLAlchemy would."""
        dialect = connection.dialect
        known = self._compiled.get(dialect.name)
        if known is None:
            own = self._postgresql if dialect.name == "postgresql" else None
            made = (self._statement if own is None else own).compile(dialect=dialect)
            order = getattr(made, "positiontup", None)
            known = self._compiled[dialect.name] = (made, str(made), order)
        compiled, text, order = known
        given: Any = compiled.construct_params(values) or {}
        if order is not None:
            given = tuple(given[name] for name in order)
        driver = connection.connection.driver_connection
        assert driver is not None
        error = dialect.loaded_dbapi.Error
        try:
            cursor = driver.cursor()
            try:
                cursor.execute(text, given)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
            finally:
                cursor.close()
        except error as failure:
            raise DBAPIError.instance(text, None, failure, error, dialect=dialect) from failure
        return rows
