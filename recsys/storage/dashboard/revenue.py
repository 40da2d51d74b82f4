"""Revenue: the value of conversions by their own time, of all and of what counts for answers."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, or_, select

from recsys.events.times import DAY_US
from recsys.storage.schema.tables import conversions


@dataclass(frozen=True, slots=True)
class Revenue:
    """Value by the time of the conversion: in all, and what counts for answers."""

    total: float
    attributed: float
    left_out: int  # conversions and returns in another currency
    by_day: tuple[float, ...]  # attributed

    @property
    def share(self) -> float | None:
        """Of all value, what counts for answers; None where nothing was sold."""
        return self.attributed / self.total if self.total > 0 else None


def revenue(
    connection: Connection, since_us: int, until_us: int, currency: str, version: str | None = None
) -> Revenue:
    """Value of the conversions in [since_us, until_us), less returns; of `version`'s answers alone
    what is attributed, where that is given.
    """
    known, at_us = in_currency(currency), conversions.c.event_at_us
    attributed: ColumnElement[bool] = conversions.c.answered_at_us.is_not(None)
    if version is not None:
        attributed = and_(attributed, conversions.c.model_version == version)
    day = at_us - at_us % DAY_US
    statement = (
        select(
            day,
            func.sum(case((known, conversions.c.value), else_=0.0)),
            func.sum(case((and_(known, attributed), conversions.c.value), else_=0.0)),
            func.sum(case((known, 0), else_=1)),
        )
        .where(at_us >= since_us, at_us < until_us)
        .group_by(day)
    )
    days = {int(row[0]): row for row in connection.execute(statement)}
    first = since_us - since_us % DAY_US
    return Revenue(
        total=float(sum(row[1] for row in days.values())),
        attributed=float(sum(row[2] for row in days.values())),
        left_out=int(sum(row[3] for row in days.values())),
        by_day=tuple(
            float(days[at][2]) if at in days else 0.0 for at in range(first, until_us, DAY_US)
        ),
    )


def revenue_by_scenario(
    connection: Connection, since_us: int, until_us: int, currency: str
) -> dict[str, float]:
    """What counts for the answers of each scenario, of conversions in [since_us, until_us), less returns."""
    statement = (
        select(conversions.c.scenario, func.sum(conversions.c.value))
        .where(
            conversions.c.event_at_us >= since_us,
            conversions.c.event_at_us < until_us,
            conversions.c.answered_at_us.is_not(None),
            in_currency(currency),
        )
        .group_by(conversions.c.scenario)
    )
    return {name: float(value) for name, value in connection.execute(statement)}


@dataclass(frozen=True, slots=True)
class ItemRevenue:
    """What an item sold, and what of it counts for answers."""

    conversions: int
    attributed: float
    value: float
    attributed_value: float


def item_revenue(
    connection: Connection, item_id: str, since_us: int, until_us: int, currency: str
) -> ItemRevenue:
    """Conversions of an item in [since_us, until_us), and their value less returns."""
    known, share = in_currency(currency), conversions.c.share
    attributed = conversions.c.answered_at_us.is_not(None)
    bought = case((conversions.c.is_return, 0.0), else_=share)
    value = case((known, conversions.c.value), else_=0.0)
    statement = select(
        func.coalesce(func.sum(bought), 0.0),
        func.coalesce(func.sum(case((attributed, bought), else_=0.0)), 0.0),
        func.coalesce(func.sum(value), 0.0),
        func.coalesce(func.sum(case((attributed, value), else_=0.0)), 0.0),
    ).where(
        conversions.c.item_id == item_id,
        conversions.c.event_at_us >= since_us,
        conversions.c.event_at_us < until_us,
    )
    row = connection.execute(statement).one()
    return ItemRevenue(round(row[0]), float(row[1]), float(row[2]), float(row[3]))


def in_currency(currency: str) -> ColumnElement[bool]:
    """Whether a conversion's value is in the configured currency; all are where none is configured."""
    if not currency:
        return literal(True).is_(True)
    return or_(conversions.c.currency == "", conversions.c.currency == currency)
