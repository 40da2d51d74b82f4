"""The catalogue as the dashboard lists it, and how the items fared in the newest events and answers.

Reads that would grow with the log look at its newest part alone and say what that part is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from recsys.errors import InputError
from recsys.storage.engine.short_selects import values_from
from recsys.storage.entities.item_rows import PRESENT, SHOWN, StoredItem, get_items, stored_item
from recsys.storage.schema.tables import (
    attributed_clicks,
    impressions,
    item_categories,
    items,
)

NEWEST_EVENTS = 100_000  # searched for the events of one item
NEWEST_ANSWERS = 5_000  # whose items are counted
SEARCHED = 20_000  # items whose titles the search over everything looks at
MAX_STEPS = 2_000  # (step, event type) of one item's figure
SORTS: dict[str, ColumnElement[Any]] = {
    "item_id": items.c.item_id,
    "title": func.coalesce(items.c.title, ""),
    "price": func.coalesce(items.c.price, -1.0),
    "added": items.c.created_at_us,
}
Position = tuple[str | float | int, str]  # value of the sort's column, item id


@dataclass(frozen=True)
class ItemQuery:
    """What a list of items is narrowed to."""

    text: str | None = None  # in titles and ids, without regard to case
    category: str | None = None
    available: bool | None = None


def list_items(
    connection: Connection,
    query: ItemQuery,
    sort: str,
    limit: int,
    after: Position | None = None,
) -> tuple[list[StoredItem], Position | None]:
    """A page of items and where the next one begins; `sort` is of SORTS, '-' in front turns it."""
    column, turned = SORTS[sort.lstrip("-")], sort.startswith("-")
    statement = _narrowed(select(*SHOWN).add_columns(column.label("sorted_by")), query)
    by_id = items.c.item_id
    if after is not None:
        value, item_id = after
        if isinstance(value, str) != (sort.lstrip("-") in ("item_id", "title")):
            raise InputError("cursor", value, "expected the next_cursor of an earlier page")
        beyond = column < value if turned else column > value
        tied = and_(column == value, by_id < item_id if turned else by_id > item_id)
        statement = statement.where(or_(beyond, tied))
    order = (column.desc(), by_id.desc()) if turned else (column, by_id)
    rows = connection.execute(statement.order_by(*order).limit(limit)).all()
    more = (rows[-1].sorted_by, rows[-1].item_id) if len(rows) == limit else None
    return [stored_item(row) for row in rows], more


def find_items(connection: Connection, text: str, limit: int) -> list[StoredItem]:
    """Items whose id begins with `text`, then those with it in the title, without regard to case.

    Titles of the first SEARCHED items by id are looked at.
    """
    ids = values_from(connection, items.c.item_id, text, limit)
    by_id = get_items(connection, [item_id for item_id in ids if item_id.startswith(text)])
    part = select(*SHOWN).where(PRESENT).order_by(items.c.item_id).limit(SEARCHED).subquery()
    named = select(part).where(part.c.title.ilike(_pattern(text), escape="\\")).limit(limit)
    by_title = [stored_item(row) for row in connection.execute(named)]
    return list({one.item_id: one for one in [*by_id.values(), *by_title]}.values())[:limit]


def _pattern(text: str) -> str:
    """Of LIKE, with `text` anywhere."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _narrowed(statement: Select[Any], query: ItemQuery) -> Select[Any]:
    statement = statement.where(PRESENT)
    if query.category is not None:
        within = select(item_categories.c.item_id).where(
            item_categories.c.category == query.category
        )
        statement = statement.where(items.c.item_id.in_(within))
    if query.available is not None:
        statement = statement.where(items.c.available if query.available else ~items.c.available)
    if query.text:
        pattern = _pattern(query.text)
        statement = statement.where(
            or_(
                items.c.title.ilike(pattern, escape="\\"),
                items.c.item_id.ilike(pattern, escape="\\"),
            )
        )
    return statement


def categories(connection: Connection, limit: int) -> list[str]:
    """The first `limit` categories by name."""
    return values_from(connection, item_categories.c.category, "", limit)


@dataclass(frozen=True)
class ItemEvents:
    """Events of one item among the newest of all."""

    since_us: int | None  # when the first to arrive of them happened; None without events
    looked_at: int
    steps: list[tuple[int, str, int]]  # where the step begins (µs), event type, events


@dataclass(frozen=True)
class Exposure:
    """What the newest answers showed, and what was clicked of them."""

    answers: int
    since_us: int | None
    until_us: int | None
    shown: Counter[str]  # by item: answers that showed it
    clicked: Counter[str]  # by item: answers of which it was clicked


def exposure(connection: Connection) -> Exposure:
    """Of the NEWEST_ANSWERS stored. What was really shown counts where a caller said so."""
    answers = impressions.c
    rows = connection.execute(
        select(answers.id, answers.created_at_us, answers["items"], answers.shown)
        .order_by(answers.id.desc())
        .limit(NEWEST_ANSWERS)
    ).all()
    shown: Counter[str] = Counter()
    for row in rows:
        told = orjson.loads(row.shown) if row.shown else [one[0] for one in orjson.loads(row.items)]
        shown.update(told)
    if not rows:
        return Exposure(0, None, None, shown, Counter())
    its_clicks = answers.recommendation_id == attributed_clicks.c.recommendation_id
    statement = (
        select(attributed_clicks.c.item_id, func.count())
        .select_from(impressions.join(attributed_clicks, its_clicks))
        .where(answers.id >= rows[-1].id)
        .group_by(attributed_clicks.c.item_id)
    )
    clicked = Counter({row[0]: int(row[1]) for row in connection.execute(statement)})
    return Exposure(len(rows), rows[-1].created_at_us, rows[0].created_at_us, shown, clicked)


def never_shown(
    connection: Connection, shown: Collection[str], limit: int, after: str | None = None
) -> tuple[list[StoredItem], str | None]:
    """A page of available items that are not among `shown`, by id, and where the next one begins."""
    found: list[StoredItem] = []
    at = after
    for _ in range(10):  # batches that one page reads
        statement = select(*SHOWN).where(items.c.available).order_by(items.c.item_id).limit(500)
        if at is not None:
            statement = statement.where(items.c.item_id > at)
        rows = connection.execute(statement).all()
        for row in rows:
            at = row.item_id
            if at not in shown:
                found.append(stored_item(row))
            if len(found) == limit:
                return found, at
        if len(rows) < 500:
            return found, None
    return found, at


def catalogue_size(connection: Connection) -> dict[Literal["items", "hidden"], int]:
    """How many items there are, and how many of them are not available."""
    hidden = select(func.count()).select_from(items).where(~items.c.available, PRESENT)
    return {
        "items": int(
            connection.execute(select(func.count()).select_from(items).where(PRESENT)).scalar_one()
        ),
        "hidden": int(connection.execute(hidden).scalar_one()),
    }
