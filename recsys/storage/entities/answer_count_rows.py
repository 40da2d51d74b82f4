"""Answers and clicks by the hour of the answer.

Counted are, of each source, items shown and items clicked; of the answer as a whole (source ''), answers
given and answers with a click. An item of an answer counts once, however often it is clicked. Answers
whose click somebody else than a page told of are counted once more, for whoever acts on clicks: a page's key
is public.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, case, func, or_, select

from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import answer_counts

WHOLE = ""  # the source that stands for the answer as a whole
EMPTY = "empty"  # stands in for the source where an answer held nothing
TRUSTED = "trusted"  # stands in for the source of clicks that no page told of

CountKey = tuple[int, str, str, str, str]  # hour_us, version, arm, scenario, source


def counts(
    connection: Connection,
    since_us: int,
    until_us: int,
    by: Collection[str],
    *,
    pages_clicks: bool = True,
) -> list[dict[str, Any]]:
    """Shown and clicked in [since_us, until_us), grouped by columns of `answer_counts`.

    With `source` among them: items by source. Without: whole answers, and without `pages_clicks` those
    clicks alone that no page told of.
    """
    columns = [answer_counts.c[name] for name in by]
    source = answer_counts.c.source
    counted = source.not_in((WHOLE, TRUSTED)) if "source" in by else source == WHOLE
    clicked = counted if pages_clicks else source == TRUSTED
    statement = (
        select(
            *columns,
            func.sum(case((counted, answer_counts.c.shown), else_=0)).label("shown"),
            func.sum(case((clicked, answer_counts.c.clicks), else_=0)).label("clicks"),
        )
        .where(
            answer_counts.c.hour_us >= since_us,
            answer_counts.c.hour_us < until_us,
            or_(counted, clicked),
        )
        .group_by(*columns)
        .order_by(*columns)
    )
    names = [*by, "shown", "clicks"]
    found = [dict(zip(names, row, strict=True)) for row in connection.execute(statement)]
    return [{**row, "shown": int(row["shown"]), "clicks": int(row["clicks"])} for row in found]


def empty_answers(connection: Connection, since_us: int, until_us: int, version: str) -> int:
    """How many of a champion's answers in [since_us, until_us) held no item; pages' do not count."""
    statement = select(func.sum(answer_counts.c.shown)).where(
        answer_counts.c.hour_us >= since_us,
        answer_counts.c.hour_us < until_us,
        answer_counts.c.model_version == version,
        answer_counts.c.arm == "champion",
        answer_counts.c.source == EMPTY,
    )
    return int(connection.execute(statement).scalar_one() or 0)


def add_counts(connection: Connection, more: Counter[CountKey], column: str) -> None:
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
