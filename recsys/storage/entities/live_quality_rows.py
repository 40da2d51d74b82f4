"""Live quality by the hour: what would have been answered just before each click, as sums.

A row sums up a sample of an hour's positions and names nobody. Hours add up.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

from sqlalchemy import Connection, delete, select

from recsys.events.times import DAY_US, HOUR_US
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import live_quality

KEPT_DAYS = 400
ENOUGH, LEAST = 1_000, 200  # positions that the figures of late rest on, and that a warning needs

System = Literal["live", "still", "popular"]
SYSTEMS: tuple[System, ...] = ("live", "still", "popular")


@dataclass(frozen=True)
class LiveQuality:
    """Sums over positions of one hour, or of several from `hour_us` on; the fields are the columns."""

    hour_us: int
    positions: int = 0
    unknown: int = 0  # of them, with a target that no training had seen
    live_hits: int = 0  # targets among the first 20
    live_reciprocals: float = 0.0  # 1/rank of those, summed up
    still_hits: int = 0
    still_reciprocals: float = 0.0
    popular_hits: int = 0
    popular_reciprocals: float = 0.0

    def __add__(self, other: LiveQuality) -> LiveQuality:
        sums = (a + b for a, b in zip(astuple(self)[1:], astuple(other)[1:], strict=True))
        return LiveQuality(min(self.hour_us, other.hour_us), *sums)

    def recall(self, system: System) -> float | None:
        """The share of targets among the first 20 items; None of no positions."""
        hits: int = getattr(self, f"{system}_hits")
        return hits / self.positions if self.positions else None

    def mrr(self, system: System) -> float | None:
        """The mean of 1/rank, 0 beyond the first 20."""
        summed: float = getattr(self, f"{system}_reciprocals")
        return summed / self.positions if self.positions else None

    @property
    def unknown_share(self) -> float | None:
        """The share of positions whose target no training had seen."""
        return self.unknown / self.positions if self.positions else None

    @property
    def falls_below_popular(self) -> bool:
        """Whether popular items alone would have found more of the targets, of LEAST at least."""
        return self.positions >= LEAST and self.live_hits < self.popular_hits


def put_hour(connection: Connection, found: LiveQuality) -> None:
    """Write down an hour in place of what was there; those past KEPT_DAYS go."""
    statement = upsert(connection, live_quality).values(**vars(found))
    replaced = {name: value for name, value in vars(found).items() if name != "hour_us"}
    connection.execute(statement.on_conflict_do_update(index_elements=["hour_us"], set_=replaced))
    old = live_quality.c.hour_us < found.hour_us - KEPT_DAYS * DAY_US
    connection.execute(delete(live_quality).where(old))


def hours_between(connection: Connection, since_us: int, until_us: int) -> list[LiveQuality]:
    """The hours that begin in [since_us, until_us), in order of time."""
    hour = live_quality.c.hour_us
    statement = select(live_quality).where(hour >= since_us, hour < until_us).order_by(hour)
    return [LiveQuality(**row._mapping) for row in connection.execute(statement)]


def newest_missing(connection: Connection, since_us: int, until_us: int) -> int | None:
    """The newest whole hour (its start) in [since_us, until_us) without a row; None where there is none."""
    done = {one.hour_us for one in hours_between(connection, since_us, until_us)}
    hours = range(until_us - until_us % HOUR_US - HOUR_US, since_us - 1, -HOUR_US)
    return next((hour for hour in hours if hour not in done), None)


def of_late(connection: Connection, now_us: int) -> LiveQuality | None:
    """The newest hours of the last day that hold ENOUGH positions, or all of them; None where none has
    a position.
    """
    found: LiveQuality | None = None
    for one in reversed(hours_between(connection, now_us - DAY_US, now_us)):
        if found is not None and found.positions >= ENOUGH:
            break
        if one.positions:
            found = one if found is None else found + one
    return found
