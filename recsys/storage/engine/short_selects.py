"""Short SELECTs: compiled once for requests, and the distinct values of an indexed column."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Select, func, literal, select
from sqlalchemy.exc import DBAPIError


class CompiledSelect:
    """A SELECT that every request runs: compiled once for each dialect, run by the driver itself.

    That spares most of what a short statement costs. Values come back as the driver gives them.
    """

    def __init__(self, statement: Select[Any], postgresql: Select[Any] | None = None) -> None:
        """`statement` holds its values as named bind parameters; `postgresql` stands in for it there."""
        self._statement, self._postgresql = statement, postgresql
        self._compiled: dict[str, tuple[str, Any, dict[str, Any]]] = {}

    def __call__(self, connection: Connection, **values: object) -> list[tuple[Any, ...]]:
        """The rows. Raises DBAPIError as SQLAlchemy would."""
        dialect = connection.dialect
        known = self._compiled.get(dialect.name)
        if known is None:
            own = self._postgresql if dialect.name == "postgresql" else None
            made = (self._statement if own is None else own).compile(dialect=dialect)
            order = getattr(made, "positiontup", None)
            fixed = made.construct_params(dict.fromkeys(values)) or {}
            known = self._compiled[dialect.name] = (str(made), order, dict(fixed))
        text, order, fixed = known
        given: Any = {**fixed, **values}
        if order is not None:
            given = tuple([given[name] for name in order])
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


def values_from(connection: Connection, column: Column[str], start: str, limit: int) -> list[str]:
    """The first `limit` distinct values of `column` from `start` on, in the database's order.

    A skip scan: one index look-up a value, however many rows lie between them.
    `column` leads an index, or each look-up reads the whole table.
    """
    walk = (
        select(func.min(column).label("value"), literal(1).label("step"))
        .where(column >= start)
        .cte("walk", recursive=True)
    )
    after = select(func.min(column)).where(column > walk.c.value).scalar_subquery()
    walk = walk.union_all(
        select(after, walk.c.step + 1).where(walk.c.value.is_not(None), walk.c.step < limit)
    )
    statement = select(walk.c.value).where(walk.c.value.is_not(None)).order_by(walk.c.step)
    return list(connection.execute(statement).scalars())
