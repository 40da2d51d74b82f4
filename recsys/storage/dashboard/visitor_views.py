"""Visitors as the dashboard lists them: users, and sessions of nobody known.

Every read is bounded and goes by an index, however many events there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from recsys.events.identity import Owner
from recsys.storage.schema.tables import aliases, impressions

SCANNED = 10_000  # newest events that one page of recent visitors looks through
COUNTED = 1_000  # events of a visitor that a list counts


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user, or a session whose events no user owns. One of the two ids is set."""

    user_id: str | None
    session_id: str | None
    last_event_us: int
    last_item_id: str
    events: int  # COUNTED at most

    @property
    def name(self) -> str:
        return self.user_id or self.session_id or ""

    @property
    def key(self) -> str:
        return Owner(self.user_id, self.session_id).key


@dataclass(frozen=True, slots=True)
class VisitorQuery:
    """Which page of visitors is asked for."""

    limit: int
    now_us: int
    before_id: int | None = None  # `next_id` of the page before
    kind: str | None = None  # 'registered', 'anonymous'; None: both


@dataclass(frozen=True, slots=True)
class VisitorPage:
    """A page of visitors, and the row id that the next one goes on from."""

    visitors: list[Visitor]
    next_id: int | None
    scanned: int  # events looked through


@dataclass(frozen=True, slots=True)
class TimeLineEvent:
    """One event of a visitor's time line."""

    id: int  # by which the events of one moment are in order
    user_id: str | None
    session_id: str | None
    item_id: str
    event_type: str
    timestamp_us: int
    event_id: str
    recommendation_id: str | None = None


@dataclass(frozen=True, slots=True)
class EventPosition:
    """Where an event stands in a visitor's time line."""

    timestamp_us: int
    row_id: int


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer that a visitor was given."""

    recommendation_id: str
    created_at_us: int
    model_version: str | None
    scenario: str | None
    arm: str | None


def merged_to(connection: Connection, key: str) -> str | None:
    """The user that 'u:<user_id>' or 's:<session_id>' was merged into."""
    statement = select(aliases.c.user_id).where(aliases.c.alias_key == key)
    return connection.execute(statement).scalar()


def answers_to(connection: Connection, owner: Owner, limit: int) -> list[GivenAnswer]:
    """The newest answers a user or session was given."""
    of_user = impressions.c.user_id == owner.user_id
    of_session = impressions.c.session_id == owner.session_id
    statement = (
        select(
            impressions.c.recommendation_id,
            impressions.c.created_at_us,
            impressions.c.model_version,
            impressions.c.scenario,
            impressions.c.arm,
        )
        .where(of_session if owner.user_id is None else of_user)
        .order_by(impressions.c.id.desc())
        .limit(limit)
    )
    return [GivenAnswer(**row._mapping) for row in connection.execute(statement)]
