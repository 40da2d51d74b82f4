"""Different values of an indexed column, one index look-up each: rows between them are not read."""

from __future__ import annotations

from sqlalchemy import Column, Connection, func, literal, select


def values_from(connection: Connection, column: Column[str], start: str, limit: int) -> list[str]:
    """The first `limit` different values of `column` from `start` on, in the database's order.

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
