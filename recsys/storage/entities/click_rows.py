"""Clicks: events that name the answer they came from, attributed to its items.

Of each item of an answer one click is kept: one that no page told of before a page's, whose key anybody
can read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, or_, select, update

from recsys.events.identity import PAGE_ID_PREFIX
from recsys.storage.entities import experiment_unit_rows, key_values
from recsys.storage.entities.answer_count_rows import TRUSTED, WHOLE, CountKey, add_counts
from recsys.storage.entities.experiment_unit_rows import UnitKey
from recsys.storage.entities.impression_rows import CHUNK, Impression, get_impressions
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import attributed_clicks, events

_REPLACE = (
    update(attributed_clicks)
    .where(
        attributed_clicks.c.recommendation_id == bindparam("answer"),
        attributed_clicks.c.item_id == bindparam("item"),
    )
    .values(event_row_id=bindparam("row"))
)


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
        select(
            events.c.id,
            events.c.event_id,
            events.c.item_id,
            events.c.recommendation_id,
            events.c.received_at_us,
        )
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
    kept = _attributed(connection, named)
    clicked = {answer for answer, _ in kept}
    trusted = _trusted(kept)
    clicks: Counter[CountKey] = Counter()
    of_units: Counter[UnitKey] = Counter()
    rows, replaced = [], []
    for event in pending:
        answer = answers.get(event.recommendation_id)
        pair = (event.recommendation_id, event.item_id)
        is_trusted = not event.event_id.startswith(PAGE_ID_PREFIX)
        if answer is None or (pair in kept and (kept[pair] or not is_trusted)):
            continue
        places = {one.item_id: (rank, one.source) for rank, one in enumerate(answer.items, 1)}
        if event.item_id not in places:
            continue
        rank, source = places[event.item_id]
        if pair in kept:
            replaced.append({"answer": pair[0], "item": pair[1], "row": event.id})
        else:
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
            clicks[answer.key(source)] += 1
            clicks[answer.key(WHOLE)] += answer.recommendation_id not in clicked
            if answer.recommendation_id not in clicked:
                of_units.update(_experiment_units(answer))
            clicked.add(answer.recommendation_id)
        if is_trusted:
            clicks[answer.key(TRUSTED)] += answer.recommendation_id not in trusted
            trusted.add(answer.recommendation_id)
        kept[pair] = is_trusted
    if rows:
        connection.execute(attributed_clicks.insert(), rows)
    if replaced:
        connection.execute(_REPLACE, replaced)
    add_counts(connection, clicks, "clicks")
    experiment_unit_rows.add_clicks(connection, of_units)
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
    names = {row.recommendation_id for row in rows}
    before = _attributed(connection, names)
    connection.execute(delete(attributed_clicks).where(clicked))
    answers = get_impressions(connection, names)
    left = _attributed(connection, names)
    clicks: Counter[CountKey] = Counter()
    for row in rows:
        if row.recommendation_id in answers:
            clicks[answers[row.recommendation_id].key(row.source)] -= 1
    of_units: Counter[UnitKey] = Counter()
    for name in names - {answer for answer, _ in left}:
        if name in answers:
            clicks[answers[name].key(WHOLE)] -= 1
            of_units.subtract(_experiment_units(answers[name]))
    for name in _trusted(before) - _trusted(left):
        if name in answers:
            clicks[answers[name].key(TRUSTED)] -= 1
    add_counts(connection, clicks, "clicks")
    experiment_unit_rows.add_clicks(connection, of_units)


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


def _attributed(connection: Connection, ids: Iterable[str]) -> dict[tuple[str, str], bool]:
    """The (answer, item) that were clicked; whether anybody but a page told of it."""
    wanted = list(ids)
    found: dict[tuple[str, str], bool] = {}
    for at in range(0, len(wanted), CHUNK):
        statement = (
            select(
                attributed_clicks.c.recommendation_id,
                attributed_clicks.c.item_id,
                events.c.event_id,
            )
            .outerjoin(events, events.c.id == attributed_clicks.c.event_row_id)
            .where(attributed_clicks.c.recommendation_id.in_(wanted[at : at + CHUNK]))
        )
        for answer, item_id, event_id in connection.execute(statement):
            found[answer, item_id] = not (event_id or "").startswith(PAGE_ID_PREFIX)
    return found


def _experiment_units(answer: Impression) -> list[UnitKey]:
    """The experiments' units that an answer counts for."""
    unit = answer.unit
    return [] if unit is None else [(name, unit) for name in answer.experiments or ()]


def _trusted(clicked: Mapping[tuple[str, str], bool]) -> set[str]:
    """The answers among `clicked` of whose click somebody else than a page told."""
    return {answer for (answer, _), is_trusted in clicked.items() if is_trusted}
