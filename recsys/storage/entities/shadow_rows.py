"""What shadow arms would have answered, beside the answers that were given."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, select

from recsys.events.identity import sequence_key
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities.tombstone_rows import is_erased
from recsys.storage.schema.tables import attributed_clicks, shadow_answers

NEWEST = 5_000  # of an arm's answers that are looked at


@dataclass(frozen=True)
class ShadowAnswer:
    """What an arm would have answered."""

    recommendation_id: str  # of the answer that was given
    experiment: str
    arm: str
    created_at_us: int
    items: tuple[tuple[str, str, float], ...]  # item id, source, score; best first
    overlap: float  # share of the items shown that are among its own
    milliseconds: float


@dataclass(frozen=True)
class ShadowFigures:
    """An arm's newest answers, beside those that were given."""

    arm: str
    answers: int
    overlap: float  # mean share of the items shown that are among its own
    milliseconds: float
    clicked: int  # items that were clicked,
    clicked_too: int  # and are among its own


def add_shadow(
    connection: Connection, one: ShadowAnswer, user_id: str | None, session_id: str | None
) -> None:
    """Store it, unless whoever asked was erased meanwhile."""
    advisory_lock.lock_shared(connection)
    if is_erased(connection, [sequence_key(user_id, session_id)]):
        return
    values = {**vars(one), "items": orjson.dumps(one.items).decode()}
    statement = upsert(connection, shadow_answers).values(**values)
    keys = ["recommendation_id", "experiment"]
    connection.execute(statement.on_conflict_do_nothing(index_elements=keys))


def figures(connection: Connection, experiment: str, arm: str) -> ShadowFigures:
    """Of the arm's NEWEST answers."""
    rows = shadow_answers.c
    newest = (
        select(
            rows.recommendation_id,
            rows["items"].label("ranked"),
            rows.overlap,
            rows.milliseconds,
        )
        .where(rows.experiment == experiment, rows.arm == arm)
        .order_by(rows.created_at_us.desc())
        .limit(NEWEST)
        .subquery()
    )
    found = connection.execute(select(newest)).all()
    clicks = connection.execute(
        select(newest.c.ranked, attributed_clicks.c.item_id).join(
            attributed_clicks,
            attributed_clicks.c.recommendation_id == newest.c.recommendation_id,
        )
    ).all()
    number = max(1, len(found))
    return ShadowFigures(
        arm=arm,
        answers=len(found),
        overlap=sum(row.overlap for row in found) / number,
        milliseconds=sum(row.milliseconds for row in found) / number,
        clicked=len(clicks),
        clicked_too=sum(
            row.item_id in {item_id for item_id, *_ in orjson.loads(row.ranked)} for row in clicks
        ),
    )
