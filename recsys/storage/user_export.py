"""All that is stored of a user as one JSON object, part by part: what a request for access is answered by.

Merged ids are included, as they are erased with the user; no part holds more than a page of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import Connection, select, tuple_

from recsys.errors import InputError, NotFoundError
from recsys.events.fields import Event
from recsys.events.identity import users_and_sessions
from recsys.events.times import rfc3339
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    attribute_rows,
    click_rows,
    erasure_rows,
    experiment_unit_rows,
    impression_rows,
)
from recsys.storage.events_source import EventsSource
from recsys.storage.schema.tables import conversions, deferred_events, impressions, rejected_events

PAGE = 1_000
FORMAT = 1  # of the object; raised where a key changes its meaning


def user_json(
    source: EventsSource, database: Database, user_id: str, now_us: int
) -> Iterator[bytes]:
    """The object's bytes. Raises NotFoundError at once where nothing is stored of the user."""
    with database.connect() as connection:
        keys = erasure_rows.person_keys(connection, user_id)
        tried = experiment_unit_rows.units_of(connection, keys)
        attributes = attribute_rows.get_attributes(connection, user_id)
        merged, sessions = users_and_sessions(keys[1:])
        first = source.user_events(connection, keys[0][2:], 1).events
        given = _answer_ids(connection, keys, 0, 1)
    if not (first or given or attributes or keys[1:]):
        raise NotFoundError("user", user_id)
    head = {
        "format": FORMAT,
        "user_id": keys[0][2:],
        "exported_at": rfc3339(now_us),
        "merged_users": merged,
        "merged_sessions": sessions,
        "attributes": None if attributes is None else attributes.attributes,
        "experiments": [_experiment(one) for one in tried],
    }
    return _written(head, source, database, keys)


def _written(
    head: dict[str, Any], source: EventsSource, database: Database, keys: list[str]
) -> Iterator[bytes]:
    yield orjson.dumps(head)[:-1]
    lists = {
        "events": _events(source, database, keys[0][2:]),
        "deferred": _deferred(database, keys),
        "answers": _answers(database, keys),
        "conversions": _conversions(database, keys),
        "quarantine": _quarantine(database, keys[0][2:]),
    }
    for name, pages in lists.items():
        yield b"," + orjson.dumps(name) + b":["
        before = b""
        for page in pages:
            yield before + b",".join(orjson.dumps(one) for one in page)
            before = b","
        yield b"]"
    yield b"}\n"


def _experiment(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "first_at": rfc3339(one.pop("first_at_us"))}


def _events(source: EventsSource, database: Database, user_id: str) -> Iterator[list[Any]]:
    """Pages of events, the newest first."""
    before: int | None = None
    while True:
        with database.connect() as connection:
            try:
                page = source.user_events(connection, user_id, PAGE, before)
            except InputError:  # further back than an external table is paged
                yield [{"note": "older events are in the mapped table"}]
                return
        if page.events:
            yield [_event(one) for one in page.events]
        if page.next_before is None:
            return
        before = page.next_before


def _deferred(database: Database, keys: list[str]) -> Iterator[list[Any]]:
    """Pages of the feedback whose time has not come."""
    ids, _ = users_and_sessions(keys)
    rows = deferred_events.c
    after, number = 0, PAGE
    while number == PAGE:
        statement = select(deferred_events).where(rows.user_id.in_(ids), rows.id > after)
        with database.connect() as connection:
            page = connection.execute(statement.order_by(rows.id).limit(PAGE)).all()
        number = len(page)
        if page:
            after = page[-1].id
            named = [{**row._mapping, "session_id": None} for row in page]
            yield [_event(Event(**{k: v for k, v in one.items() if k != "id"})) for one in named]


def _event(one: Event) -> dict[str, Any]:
    values = asdict(one)
    values["timestamp"] = rfc3339(values.pop("timestamp_us"))
    if one.properties is not None:
        values["properties"] = orjson.loads(one.properties)
    return values


def _answers(database: Database, keys: list[str]) -> Iterator[list[Any]]:
    """Pages of the answers that were given, the oldest first, with what was clicked of each."""
    after = 0
    while True:
        with database.connect() as connection:
            found = _answer_ids(connection, keys, after, PAGE)
            rows = impression_rows.get_impressions(connection, [name for _, name in found])
            page = []
            for _, name in found:
                one = asdict(rows[name])
                one["items"] = list(map(impression_rows.plain_item, rows[name].items))
                one["created_at"] = rfc3339(one.pop("created_at_us"))
                clicks = click_rows.clicks_of(connection, name)
                page.append({**one, "clicks": [_click(click) for click in clicks]})
        if page:
            yield page
        if len(found) < PAGE:
            return
        after = found[-1][0]


def _click(click: dict[str, Any]) -> dict[str, Any]:
    values = dict(click)
    values["timestamp"] = rfc3339(values.pop("timestamp_us"))
    return values


def _conversions(database: Database, keys: list[str]) -> Iterator[list[Any]]:
    """Pages of what was bought and taken back, by the answers that it counts for."""
    columns = conversions.c
    after, number = ("", 0, ""), PAGE
    order = (columns.owner_key, columns.event_row_id, columns.recommendation_id)
    while number == PAGE:
        statement = select(conversions).where(columns.owner_key.in_(keys), tuple_(*order) > after)
        with database.connect() as connection:
            page = connection.execute(statement.order_by(*order).limit(PAGE)).all()
        number = len(page)
        if page:
            after = (page[-1].owner_key, page[-1].event_row_id, page[-1].recommendation_id)
            yield [
                _conversion({str(name): one for name, one in row._mapping.items()}) for row in page
            ]


def _conversion(values: dict[str, Any]) -> dict[str, Any]:
    del values["event_row_id"]
    for name in ("event_at", "answered_at"):
        values[name] = rfc3339(values.pop(f"{name}_us"))
    return values


def _answer_ids(
    connection: Connection, keys: list[str], after: int, limit: int
) -> list[tuple[int, str]]:
    ids, sessions = users_and_sessions(keys)
    columns = impressions.c
    statement = (
        select(columns.id, columns.recommendation_id)
        .where(erasure_rows.given_to(ids, sessions), columns.id > after)
        .order_by(columns.id)
        .limit(limit)
    )
    return [(int(row[0]), row[1]) for row in connection.execute(statement)]


def _quarantine(database: Database, user_id: str) -> Iterator[list[Any]]:
    """Pages of the rows in quarantine that may be of the user."""
    with database.connect() as connection:
        last = connection.execute(
            select(rejected_events.c.id).order_by(rejected_events.c.id.desc()).limit(1)
        ).scalar()
        found = erasure_rows.scan_quarantine(connection, user_id, last or 0).found
    for ids in _chunks(found):
        with database.connect() as connection:
            rows = connection.execute(
                select(rejected_events).where(rejected_events.c.id.in_(ids))
            ).all()
        names = ("source", "position", "reason", "raw")
        yield [{name: row._mapping[name] for name in names} for row in rows]


def _chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    found = list(ids)
    for at in range(0, len(found), erasure_rows.CHUNK):
        yield found[at : at + erasure_rows.CHUNK]
