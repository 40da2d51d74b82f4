"""Clicks: events that name the answer they came from, attributed to its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, or_, select

from recsys.storage.entities import key_values
from recsys.storage.entities.answer_count_rows import WHOLE, CountKey, add_counts
from recsys.storage.entities.impression_rows import CHUNK, get_impressions
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import attributed_clicks, events


class AttributedBatch(NamedTuple):
    """How many events that name an answer were looked at, and where the next batch starts."""

    number: int
    last: tuple[int, int] | None  # received_at_us and id; None where no event is left


def attribute_clicks(
    connection: Connection,
    now_us: int,
    overlap_us: int,
    limit: int,
    last: tuple[int, int] | None = None,
) -> AttributedBatch:
    """Attribute at most `limit` events behind `last` to the answers they name.

    Without `last` it goes on where an earlier run ended, less `overlap_us`: an answer may be stored
    after its click, and rows may become visible out of order. An event is counted once all the same.
    """
    watermark = key_values.get_number(connection, InstallationKey.ATTRIBUTED_UNTIL_US)
    # A clock that was set back does not leave out what comes until it is where it was.
    since, id_ = last or (min(watermark, now_us) - overlap_us, -1)
    pending = connection.execute(
        select(events.c.id, events.c.item_id, events.c.recommendation_id, events.c.received_at_us)
        .outerjoin(attributed_clicks, attributed_clicks.c.event_row_id == events.c.id)
        .where(
            events.c.recommendation_id.is_not(None),
            events.c.received_at_us >= since,
            or_(events.c.received_at_us > since, events.c.id > id_),
            events.c.received_at_us <= now_us,
            attributed_clicks.c.event_row_id.is_(None),
        )
        .order_by(events.c.received_at_us, events.c.id)
        .limit(limit)
    ).all()
    named = {row.recommendation_id for row in pending}
    answers = get_impressions(connection, named)
    counted = _attributed_pairs(connection, named)
    clicked = {answer for answer, _ in counted}
    clicks: Counter[CountKey] = Counter()
    rows = []
    for event in pending:
        answer = answers.get(event.recommendation_id)
        pair = (event.recommendation_id, event.item_id)
        if answer is None or pair in counted:
            continue
        places = {item: (rank, source) for rank, (item, source, _) in enumerate(answer.items, 1)}
        if event.item_id not in places:
            continue
        rank, source = places[event.item_id]
        counted.add(pair)
        clicks[answer.key(source)] += 1
        clicks[answer.key(WHOLE)] += answer.recommendation_id not in clicked
        clicked.add(answer.recommendation_id)
        rows.append(
            {
                "event_row_id": event.id,
                "recommendation_id": event.recommendation_id,
                "item_id": event.item_id,
                "rank": rank,
                "source": source,
                "attributed_at_us": now_us,
            }
        )
    if rows:
        connection.execute(attributed_clicks.insert(), rows)
    add_counts(connection, clicks, "clicks")
    more = len(pending) == limit
    reached = pending[-1].received_at_us if more else now_us
    key_values.put(
        connection, InstallationKey.ATTRIBUTED_UNTIL_US, min(max(watermark, reached), now_us)
    )
    return AttributedBatch(len(pending), (reached, pending[-1].id) if more else None)


def take_back(connection: Connection, chosen: ColumnElement[bool]) -> None:
    """Undo the attribution of the events that are `chosen`, which are about to be deleted."""
    named = select(events.c.id).where(chosen, events.c.recommendation_id.is_not(None))
    clicked = attributed_clicks.c.event_row_id.in_(named)
    rows = connection.execute(
        select(
            attributed_clicks.c.recommendation_id,
            attributed_clicks.c.item_id,
            attributed_clicks.c.source,
        ).where(clicked)
    ).all()
    if not rows:
        return
    connection.execute(delete(attributed_clicks).where(clicked))
    names = {row.recommendation_id for row in rows}
    answers = get_impressions(connection, names)
    left = {answer for answer, _ in _attributed_pairs(connection, names)}
    clicks: Counter[CountKey] = Counter()
    for row in rows:
        if row.recommendation_id in answers:
            clicks[answers[row.recommendation_id].key(row.source)] -= 1
    for name in names - left:
        if name in answers:
            clicks[answers[name].key(WHOLE)] -= 1
    add_counts(connection, clicks, "clicks")


def clicks_of(connection: Connection, recommendation_id: str) -> list[dict[str, Any]]:
    """What was clicked of an answer, by rank."""
    statement = (
        select(
            attributed_clicks.c.item_id,
            attributed_clicks.c.rank,
            attributed_clicks.c.source,
            events.c.event_type,
            events.c.timestamp_us,
        )
        .outerjoin(events, events.c.id == attributed_clicks.c.event_row_id)
        .where(attributed_clicks.c.recommendation_id == recommendation_id)
        .order_by(attributed_clicks.c.rank)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]


def _attributed_pairs(connection: Connection, ids: Iterable[str]) -> set[tuple[str, str]]:
    wanted = list(ids)
    found: set[tuple[str, str]] = set()
    for at in range(0, len(wanted), CHUNK):
        statement = select(
            attributed_clicks.c.recommendation_id, attributed_clicks.c.item_id
        ).where(attributed_clicks.c.recommendation_id.in_(wanted[at : at + CHUNK]))
        found.update((row[0], row[1]) for row in connection.execute(statement))
    return found
