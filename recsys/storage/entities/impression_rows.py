"""Answers as rows, the clicks attributed to them, and both counted by the hour.

What is counted: of each source, items shown and items clicked; of the answer as a whole (source ''),
answers given and answers with a click. An item of an answer counts once, however often it is clicked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, delete, func, or_, select

from recsys.events.times import HOUR_US
from recsys.storage.engine.database import upsert
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import (
    answer_counts,
    attributed_clicks,
    events,
    impressions,
)

MAX_PAGES = 100  # of one answer that can be followed back
CHUNK = 500  # ids a statement
WHOLE = ""  # the source that stands for the answer as a whole
EMPTY = "empty"  # stands in for the source where an answer held nothing

Key = tuple[int, str, str, str, str]  # hour_us, version, arm, scenario, source


@dataclass(frozen=True, slots=True)
class Impression:
    """One answer as it was given."""

    recommendation_id: str
    created_at_us: int
    user_id: str | None
    session_id: str | None
    model_version: str | None
    arm: str | None
    scenario: str | None
    items: tuple[tuple[str, str, float], ...]  # item id, source, score; best first
    page_of: str | None = None
    last_event_id: str | None = None
    sequence_length: int | None = None
    reasons: dict[str, Any] | None = None  # by item id
    shown: tuple[str, ...] | None = None  # what was really shown, where the caller said so

    def key(self, source: str) -> Key:
        """Where it is counted."""
        hour = self.created_at_us - self.created_at_us % HOUR_US
        return (hour, self.model_version or "", self.arm or "", self.scenario or "", source)


def insert_impressions(connection: Connection, given: Sequence[Impression]) -> None:
    """Store answers and count what they show; one that is stored already is not counted again."""
    if not given:
        return
    statement = (
        upsert(connection, impressions)
        .on_conflict_do_nothing(index_elements=["recommendation_id"])
        .returning(impressions.c.recommendation_id)
    )
    fresh = set(connection.execute(statement, [_row(one) for one in given]).scalars())
    shown: Counter[Key] = Counter()
    for one in given:
        if one.recommendation_id not in fresh:
            continue
        shown[one.key(WHOLE)] += 1
        if not one.items:
            shown[one.key(EMPTY)] += 1
        for _, source, _ in one.items:
            shown[one.key(source)] += 1
    _count(connection, shown, "shown")


def get_impression(connection: Connection, recommendation_id: str) -> Impression | None:
    """An answer by its id, or None."""
    return _by_id(connection, [recommendation_id]).get(recommendation_id)


def shown_up_to(connection: Connection, recommendation_id: str) -> list[str] | None:
    """Items of an answer and of those it goes on from, first page first; None where it is unknown.

    At most MAX_PAGES are followed back.
    """
    pages: list[list[str]] = []
    wanted: str | None = recommendation_id
    for _ in range(MAX_PAGES):
        found = get_impression(connection, wanted) if wanted else None
        if found is None:
            break
        pages.append([item_id for item_id, _, _ in found.items])
        wanted = found.page_of
    return [item_id for page in reversed(pages) for item_id in page] if pages else None


def note_shown(connection: Connection, recommendation_id: str, items: Sequence[str]) -> bool:
    """Write down which items were really shown; False where the answer is unknown."""
    statement = (
        impressions.update()
        .where(impressions.c.recommendation_id == recommendation_id)
        .values(shown=orjson.dumps(list(items)).decode())
    )
    return connection.execute(statement).rowcount > 0


class Looked(NamedTuple):
    """A batch of events that name an answer, and where the next one starts."""

    number: int
    last: tuple[int, int] | None  # received_at_us and id; None where no event is left


def attribute_clicks(
    connection: Connection,
    now_us: int,
    overlap_us: int,
    limit: int,
    last: tuple[int, int] | None = None,
) -> Looked:
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
    answers = _by_id(connection, named)
    counted = _attributed_pairs(connection, named)
    clicked = {answer for answer, _ in counted}
    clicks: Counter[Key] = Counter()
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
    _count(connection, clicks, "clicks")
    more = len(pending) == limit
    reached = pending[-1].received_at_us if more else now_us
    key_values.put(
        connection, InstallationKey.ATTRIBUTED_UNTIL_US, min(max(watermark, reached), now_us)
    )
    return Looked(len(pending), (reached, pending[-1].id) if more else None)


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


def counts(
    connection: Connection, since_us: int, until_us: int, by: Collection[str]
) -> list[dict[str, Any]]:
    """Shown and clicked in [since_us, until_us), grouped by columns of `answer_counts`.

    With `source` among them: items by source. Without: whole answers.
    """
    columns = [answer_counts.c[name] for name in by]
    whole = answer_counts.c.source == WHOLE
    statement = (
        select(
            *columns,
            func.sum(answer_counts.c.shown).label("shown"),
            func.sum(answer_counts.c.clicks).label("clicks"),
        )
        .where(
            answer_counts.c.hour_us >= since_us,
            answer_counts.c.hour_us < until_us,
            ~whole if "source" in by else whole,
        )
        .group_by(*columns)
        .order_by(*columns)
    )
    names = [*by, "shown", "clicks"]
    found = [dict(zip(names, row, strict=True)) for row in connection.execute(statement)]
    return [{**row, "shown": int(row["shown"]), "clicks": int(row["clicks"])} for row in found]


def empty_answers(connection: Connection, since_us: int, until_us: int, version: str) -> int:
    """How many of a version's answers in [since_us, until_us) held no item."""
    statement = select(func.sum(answer_counts.c.shown)).where(
        answer_counts.c.hour_us >= since_us,
        answer_counts.c.hour_us < until_us,
        answer_counts.c.model_version == version,
        answer_counts.c.source == EMPTY,
    )
    return int(connection.execute(statement).scalar_one() or 0)


def delete_impressions_before(connection: Connection, before_us: int, limit: int) -> int:
    """Delete at most `limit` of the answers older than `before_us`, and their clicks; how many."""
    old = connection.execute(
        select(impressions.c.recommendation_id)
        .where(impressions.c.created_at_us < before_us)
        .order_by(impressions.c.created_at_us)
        .limit(limit)
    ).scalars()
    return forget(connection, list(old))


def forget(connection: Connection, recommendation_ids: Sequence[str]) -> int:
    """Delete answers and what was clicked of them; how many answers went. Counts stay."""
    gone = 0
    for at in range(0, len(recommendation_ids), CHUNK):
        chunk = list(recommendation_ids[at : at + CHUNK])
        clicks = attributed_clicks.c.recommendation_id.in_(chunk)
        connection.execute(delete(attributed_clicks).where(clicks))
        answers = impressions.c.recommendation_id.in_(chunk)
        gone += connection.execute(delete(impressions).where(answers)).rowcount
    return gone


def _by_id(connection: Connection, ids: Iterable[str]) -> dict[str, Impression]:
    wanted, found = list(ids), {}
    for at in range(0, len(wanted), CHUNK):
        statement = select(impressions).where(
            impressions.c.recommendation_id.in_(wanted[at : at + CHUNK])
        )
        for row in connection.execute(statement):
            found[row.recommendation_id] = Impression(
                recommendation_id=row.recommendation_id,
                created_at_us=row.created_at_us,
                user_id=row.user_id,
                session_id=row.session_id,
                model_version=row.model_version,
                arm=row.arm,
                scenario=row.scenario,
                items=tuple((i, s, float(v)) for i, s, v in orjson.loads(row.items)),
                page_of=row.page_of,
                last_event_id=row.last_event_id,
                sequence_length=row.sequence_length,
                reasons=orjson.loads(row.reasons) if row.reasons else None,
                shown=tuple(orjson.loads(row.shown)) if row.shown else None,
            )
    return found


def _attributed_pairs(connection: Connection, ids: Iterable[str]) -> set[tuple[str, str]]:
    wanted = list(ids)
    found: set[tuple[str, str]] = set()
    for at in range(0, len(wanted), CHUNK):
        statement = select(
            attributed_clicks.c.recommendation_id, attributed_clicks.c.item_id
        ).where(attributed_clicks.c.recommendation_id.in_(wanted[at : at + CHUNK]))
        found.update((row[0], row[1]) for row in connection.execute(statement))
    return found


def _count(connection: Connection, more: Counter[Key], column: str) -> None:
    """Add to the counts; in the order of their keys, so that two writers cannot lock each other."""
    if not more:
        return
    statement = upsert(connection, answer_counts)
    added = answer_counts.c[column] + statement.excluded[column]
    statement = statement.on_conflict_do_update(
        index_elements=list(answer_counts.primary_key.columns), set_={column: added}
    )
    names = [each.name for each in answer_counts.primary_key.columns]
    rows = [
        {**dict(zip(names, key, strict=True)), "shown": 0, "clicks": 0, column: number}
        for key, number in sorted(more.items())
        if number
    ]
    if rows:
        connection.execute(statement, rows)


def _row(one: Impression) -> dict[str, Any]:
    return {
        "recommendation_id": one.recommendation_id,
        "created_at_us": one.created_at_us,
        "user_id": one.user_id,
        "session_id": one.session_id,
        "model_version": one.model_version,
        "scenario": one.scenario,
        "items": orjson.dumps(one.items).decode(),
        "arm": one.arm,
        "page_of": one.page_of,
        "last_event_id": one.last_event_id,
        "sequence_length": one.sequence_length,
        "reasons": orjson.dumps(one.reasons).decode() if one.reasons else None,
        "shown": orjson.dumps(list(one.shown)).decode() if one.shown is not None else None,
    }
