"""Impressions: answers as they were given, and what was really shown of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Column, Connection, bindparam, delete, select

from recsys.events.identity import asker_key
from recsys.events.times import HOUR_US
from recsys.storage.engine.database import upsert
from recsys.storage.engine.short_selects import CompiledSelect
from recsys.storage.entities import experiment_unit_rows
from recsys.storage.entities.answer_count_rows import EMPTY, WHOLE, CountKey, add_counts
from recsys.storage.entities.experiment_unit_rows import Exposure
from recsys.storage.schema.tables import (
    attributed_clicks,
    impressions,
    shadow_answers,
)

MAX_PAGES = 100  # of one answer that can be followed back
CHUNK = 500  # ids a statement


class ImpressionItem(NamedTuple):
    """An item of an answer as it is stored."""

    item_id: str
    source: str
    score: float
    propensity: float | None = (
        None  # the chance to stand here, of an answer that explores; else None
    )


def _newest_of(owner: Column[str]) -> CompiledSelect:
    """Reads the newest answers to `owner`, by its index."""
    columns = impressions.c
    limit: Any = bindparam("row_limit")
    return CompiledSelect(
        select(columns.created_at_us, columns["items"], columns.shown)
        .where(owner == bindparam("owner"), columns.created_at_us > bindparam("since"))
        .order_by(columns.created_at_us.desc())
        .limit(limit)
    )


_OF_USER, _OF_SESSION = _newest_of(impressions.c.user_id), _newest_of(impressions.c.session_id)


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
    items: tuple[ImpressionItem, ...]  # best first
    scenario_version: int | None = None  # None: the scenario is a label alone
    page_of: str | None = None
    last_event_id: str | None = None
    sequence_length: int | None = None
    reasons: dict[str, Any] | None = None  # by item id
    shown: tuple[str, ...] | None = None  # what was really shown, where the caller said so
    experiments: dict[str, str] | None = None  # experiment -> arm, of those it counts in

    @property
    def unit(self) -> str | None:
        """Who is in an experiment's arm: 'u:<user_id>', or 's:<session_id>' of who is not known."""
        return asker_key(self.user_id, self.session_id)

    def key(self, source: str) -> CountKey:
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
    shown: Counter[CountKey] = Counter()
    for one in given:
        if one.recommendation_id not in fresh:
            continue
        shown[one.key(WHOLE)] += 1
        if not one.items:
            shown[one.key(EMPTY)] += 1
        for _, source, *_ in one.items:
            shown[one.key(source)] += 1
    add_counts(connection, shown, "shown")
    experiment_unit_rows.add_exposures(
        connection,
        [
            Exposure(name, one.unit, arm, one.created_at_us)
            for one in given
            if one.experiments and one.unit is not None and one.recommendation_id in fresh
            for name, arm in one.experiments.items()
        ],
    )


def get_impression(connection: Connection, recommendation_id: str) -> Impression | None:
    """An answer by its id, or None."""
    return get_impressions(connection, [recommendation_id]).get(recommendation_id)


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
        pages.append([one.item_id for one in found.items])
        wanted = found.page_of
    return [item_id for page in reversed(pages) for item_id in page] if pages else None


def answers_to(
    connection: Connection, user_id: str | None, session_id: str | None, since_us: int, limit: int
) -> list[tuple[int, list[str]]]:
    """When a user, or else a session, was answered after `since_us`, and the items: those really shown
    where the caller said so. Of the newest `limit` answers, the newest first.
    """
    read = _OF_SESSION if user_id is None else _OF_USER
    rows = read(connection, owner=user_id or session_id, since=since_us, row_limit=limit)
    return [
        (
            int(at_us),
            orjson.loads(shown) if shown else [item[0] for item in orjson.loads(items)],
        )
        for at_us, items, shown in rows
    ]


def note_shown(connection: Connection, recommendation_id: str, items: Sequence[str]) -> bool:
    """Write down which items were really shown; False where the answer is unknown."""
    statement = (
        impressions.update()
        .where(impressions.c.recommendation_id == recommendation_id)
        .values(shown=orjson.dumps(list(items)).decode())
    )
    return connection.execute(statement).rowcount > 0


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
        shadows = shadow_answers.c.recommendation_id.in_(chunk)
        connection.execute(delete(shadow_answers).where(shadows))
        answers = impressions.c.recommendation_id.in_(chunk)
        gone += connection.execute(delete(impressions).where(answers)).rowcount
    return gone


def get_impressions(connection: Connection, ids: Iterable[str]) -> dict[str, Impression]:
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
                scenario_version=row.scenario_version,
                items=tuple(ImpressionItem(*one) for one in orjson.loads(row.items)),
                page_of=row.page_of,
                last_event_id=row.last_event_id,
                sequence_length=row.sequence_length,
                reasons=orjson.loads(row.reasons) if row.reasons else None,
                shown=tuple(orjson.loads(row.shown)) if row.shown else None,
                experiments=orjson.loads(row.experiments) if row.experiments else None,
            )
    return found


def _row(one: Impression) -> dict[str, Any]:
    return {
        "recommendation_id": one.recommendation_id,
        "created_at_us": one.created_at_us,
        "user_id": one.user_id,
        "session_id": one.session_id,
        "model_version": one.model_version,
        "scenario": one.scenario,
        "scenario_version": one.scenario_version,
        "items": orjson.dumps(list(map(plain_item, one.items))).decode(),
        "arm": one.arm,
        "page_of": one.page_of,
        "last_event_id": one.last_event_id,
        "sequence_length": one.sequence_length,
        "reasons": orjson.dumps(one.reasons).decode() if one.reasons else None,
        "shown": orjson.dumps(list(one.shown)).decode() if one.shown is not None else None,
        "experiments": orjson.dumps(one.experiments).decode() if one.experiments else None,
    }


def plain_item(item: ImpressionItem) -> tuple[object, ...]:
    """As JSON holds it: without a propensity that is none."""
    return item[:3] if item[3:] == (None,) else tuple(item)
