"""What has come from pages since a moment: an event, a recommendation that was seen, a click on one.

Looks at the newest rows alone, so that it can be asked every few seconds whatever the log holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select

from recsys.events.identity import PAGE_ID_PREFIX
from recsys.storage.entities.impression_rows import get_impressions
from recsys.storage.schema.tables import events, impressions

NEWEST_EVENTS = 5_000
NEWEST_ANSWERS = 500
NEWEST_CLICKS = 200
PAGE_ARM = "page"


@dataclass(frozen=True)
class PageEvent:
    """An event that a page posted, and when it arrived."""

    event_type: str
    item_id: str
    at_us: int


@dataclass(frozen=True)
class PageSignals:
    """The first of each kind among the newest rows, or None."""

    event: PageEvent | None
    answered_us: int | None  # a session of a page was answered
    shown_us: int | None  # and the page said what was seen of the answer
    click: PageEvent | None  # an event that names an answer and one of its items


def page_signals(connection: Connection, since_us: int) -> PageSignals:
    """What came since `since_us`."""
    answered, shown = _answers(connection, since_us)
    clicks = _clicks(connection, since_us)
    return PageSignals(_event(connection, since_us), answered, shown, clicks)


def _event(connection: Connection, since_us: int) -> PageEvent | None:
    newest = connection.execute(select(func.max(events.c.id))).scalar_one_or_none() or 0
    found = connection.execute(
        select(events.c.event_type, events.c.item_id, events.c.received_at_us)
        .where(
            events.c.id > newest - NEWEST_EVENTS,
            events.c.received_at_us >= since_us,
            events.c.event_id.startswith(PAGE_ID_PREFIX),
        )
        .order_by(events.c.id)
        .limit(1)
    ).first()
    return None if found is None else PageEvent(*found)


def _answers(connection: Connection, since_us: int) -> tuple[int | None, int | None]:
    rows = connection.execute(
        select(impressions.c.created_at_us, impressions.c.shown.is_not(None).label("shown"))
        .where(
            impressions.c.created_at_us >= since_us,
            impressions.c.session_id.is_not(None),
            or_(impressions.c.arm == PAGE_ARM, impressions.c.arm.is_(None)),
        )
        .order_by(impressions.c.created_at_us.desc())
        .limit(NEWEST_ANSWERS)
    ).all()
    return _first(row.created_at_us for row in rows), _first(
        row.created_at_us for row in rows if row.shown
    )


def _clicks(connection: Connection, since_us: int) -> PageEvent | None:
    rows = connection.execute(
        select(
            events.c.event_type,
            events.c.item_id,
            events.c.received_at_us,
            events.c.recommendation_id,
        )
        .where(
            events.c.recommendation_id.is_not(None),
            events.c.received_at_us >= since_us,
            events.c.event_id.startswith(PAGE_ID_PREFIX),
        )
        .order_by(events.c.received_at_us.desc())
        .limit(NEWEST_CLICKS)
    ).all()
    answers = get_impressions(connection, {row.recommendation_id for row in rows})
    for row in reversed(rows):
        answer = answers.get(row.recommendation_id)
        if answer is not None and row.item_id in {one.item_id for one in answer.items}:
            return PageEvent(row.event_type, row.item_id, row.received_at_us)
    return None


def _first(times: Iterable[int]) -> int | None:
    return min(times, default=None)
