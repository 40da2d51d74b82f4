"""Reports of the events' quality and the sizes of database and registry, a row a day."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, text

from recsys.events.times import DAY_US
from recsys.storage.engine.database import upsert
from recsys.storage.entities import erasure_rows
from recsys.storage.schema.tables import quality_reports, rejected_events, storage_sizes

KEPT_DAYS = 400
LOOKED_AT = 50_000  # newest rows of the quarantine that are summed up, or searched
MAX_REASONS = 12
_FIELD = re.compile(r"(\w+) (?:= )?(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^:' ]+): (.*)", re.S)


@dataclass(frozen=True)
class Report:
    """One look at the events; `facts` is a JSON object."""

    made_at_us: int
    facts: dict[str, Any]


def put_report(connection: Connection, now_us: int, facts: dict[str, Any]) -> None:
    """Write down today's look in place of an earlier one, without users who were erased since it was
    made; those past KEPT_DAYS go.
    """
    kept = erasure_rows.report_without_erased(connection, facts)
    values = {"made_at_us": now_us, "facts": json.dumps(kept)}
    statement = upsert(connection, quality_reports).values(
        day_us=now_us - now_us % DAY_US, **values
    )
    connection.execute(statement.on_conflict_do_update(index_elements=["day_us"], set_=values))
    old = quality_reports.c.day_us < now_us - KEPT_DAYS * DAY_US
    connection.execute(delete(quality_reports).where(old))


def newest_report(connection: Connection) -> Report | None:
    """The last look; None before the first."""
    statement = select(quality_reports).order_by(quality_reports.c.day_us.desc()).limit(1)
    row = connection.execute(statement).one_or_none()
    return None if row is None else Report(row.made_at_us, json.loads(row.facts))


def summarise_rejected(connection: Connection) -> dict[str, Any]:
    """The newest LOOKED_AT rows of the quarantine: by kind of reason, by source, by day; JSON-ready."""
    rows = rejected_events.c
    newest = (
        select(rows.source, rows.reason, rows.rejected_at_us, rows.replayed_at_us)
        .order_by(rows.id.desc())
        .limit(LOOKED_AT)
    )
    reasons: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    days: Counter[int] = Counter()
    looked = waiting = 0
    for source, reason, rejected_at_us, replayed_at_us in connection.execute(newest):
        looked += 1
        waiting += replayed_at_us is None
        days[rejected_at_us - rejected_at_us % DAY_US] += 1
        if replayed_at_us is None:
            reasons[kind_of_reason(reason)] += 1
            sources[source] += 1
    return {
        "rows": looked,
        "waiting": waiting,
        "complete": looked < LOOKED_AT,
        "reasons": [list(pair) for pair in reasons.most_common(MAX_REASONS)],
        "sources": [list(pair) for pair in sources.most_common(MAX_REASONS)],
        "by_day": [list(pair) for pair in sorted(days.items())],
    }


def kind_of_reason(reason: str) -> str:
    """A reason without the value it names, so that like ones count together.

    >>> kind_of_reason("timestamp 'soon': expected RFC 3339"), kind_of_reason("item_id is missing")
    ('timestamp: expected RFC 3339', 'item_id is missing')
    >>> kind_of_reason("expected 4 fields, found 2: 'a,b'")
    'expected 4 fields, found 2'
    """
    if found := _FIELD.fullmatch(reason):
        return f"{found[1]}: {found[2]}"[:200]
    return re.split(r": ['\"b{\[]", reason)[0][:200]


def list_rejected(
    connection: Connection,
    limit: int,
    before_id: int | None = None,
    source: str | None = None,
    text: str | None = None,
    waiting: bool | None = None,
) -> list[dict[str, Any]]:
    """A page, newest first. A search by `text` of the reason looks at the newest LOOKED_AT rows."""
    rows = rejected_events.c
    statement = select(rejected_events).order_by(rows.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(rows.id < before_id)
    if source is not None:
        statement = statement.where(rows.source == source)
    if waiting is not None:
        statement = statement.where(rows.replayed_at_us.is_(None) == waiting)
    if source is not None or text is not None or waiting is not None:
        newest = select(func.max(rows.id)).scalar_subquery()
        statement = statement.where(rows.id > newest - LOOKED_AT)
    if text is not None:
        statement = statement.where(func.lower(rows.reason).contains(text.lower(), autoescape=True))
    return [dict(row._mapping) for row in connection.execute(statement)]


LOOK_BACK_DAYS = 30


@dataclass(frozen=True)
class SizeRow:
    """Sizes in bytes, as last measured on one day."""

    day_us: int
    database_bytes: int
    registry_bytes: int
    free_bytes: int | None


@dataclass(frozen=True)
class Growth:
    """The newest sizes, and what a day adds to them; None where one day alone was measured."""

    newest: SizeRow
    bytes_a_day: float | None

    @property
    def days_left(self) -> float | None:
        """Until the disk is full at this rate; None where that is unknown, or nothing grows."""
        free = self.newest.free_bytes
        if free is None or self.bytes_a_day is None or self.bytes_a_day <= 0:
            return None
        return free / self.bytes_a_day


def put_size(
    connection: Connection, now_us: int, registry_bytes: int, free_bytes: int | None
) -> None:
    """Write down the sizes of today; the database's own is asked for."""
    values = {
        "database_bytes": database_bytes(connection),
        "registry_bytes": registry_bytes,
        "free_bytes": free_bytes,
    }
    day_us = now_us - now_us % DAY_US
    statement = upsert(connection, storage_sizes).values(day_us=day_us, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["day_us"], set_=values))


def database_bytes(connection: Connection) -> int:
    if connection.dialect.name == "postgresql":
        statement = text("SELECT pg_database_size(current_database())")
    else:
        statement = text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    return int(connection.execute(statement).scalar_one())


def growth(connection: Connection) -> Growth | None:
    """Over the last LOOK_BACK_DAYS; None where nothing was measured."""
    newest = connection.execute(
        select(storage_sizes).order_by(storage_sizes.c.day_us.desc()).limit(1)
    ).one_or_none()
    if newest is None:
        return None
    since = newest.day_us - LOOK_BACK_DAYS * DAY_US
    first_day = select(func.min(storage_sizes.c.day_us)).where(storage_sizes.c.day_us >= since)
    first = connection.execute(
        select(storage_sizes).where(storage_sizes.c.day_us == first_day.scalar_subquery())
    ).one()
    days = (newest.day_us - first.day_us) / DAY_US
    if days < 1:
        return Growth(SizeRow(*newest), None)
    more = newest.database_bytes + newest.registry_bytes
    more -= first.database_bytes + first.registry_bytes
    return Growth(SizeRow(*newest), more / days)
