"""Touches: the answers that showed an item to whoever then bought it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import orjson
from sqlalchemy import ColumnElement, Connection, select

from recsys.events.identity import sequence_key
from recsys.storage.entities.impression_rows import CHUNK, get_impressions
from recsys.storage.schema.tables import aliases, impressions

Key = TypeVar("Key", int, str)

MAX_TOUCHES = 20  # of one event: the newest


class Touch(NamedTuple):
    """One answer that an event counts for."""

    recommendation_id: str
    answered_at_us: int
    rank: int  # of the item, from 1
    source: str
    model_version: str
    arm: str
    scenario: str


@dataclass(frozen=True, slots=True)
class ConversionEvent:
    """An event that is a conversion, as far as attribution needs it."""

    row_id: int
    user_id: str | None
    session_id: str | None
    item_id: str
    timestamp_us: int
    recommendation_id: str | None

    @property
    def owner_key(self) -> str:
        return sequence_key(self.user_id, self.session_id)


@dataclass(frozen=True, slots=True)
class Person:
    """All ids of whoever did something: a user with all that was merged into it, or a session."""

    user_ids: frozenset[str]
    session_ids: frozenset[str]

    @property
    def owner_keys(self) -> list[str]:
        users = (f"u:{one}" for one in self.user_ids)
        return sorted([*users, *(f"s:{one}" for one in self.session_ids)])


def people_of(connection: Connection, owner_keys: Iterable[str]) -> dict[str, Person]:
    """Who each of 'u:<user_id>' and 's:<session_id>' is."""
    keys = set(owner_keys)
    into: dict[str, str] = {}
    for chunk in chunks(keys):
        statement = select(aliases.c.alias_key, aliases.c.user_id)
        found = connection.execute(statement.where(aliases.c.alias_key.in_(chunk)))
        into.update((key, user_id) for key, user_id in found)
    final = {key: into.get(key) or (key[2:] if key[:2] == "u:" else None) for key in keys}
    merged: dict[str, list[str]] = defaultdict(list)
    for chunk in chunks({one for one in final.values() if one is not None}):
        statement = select(aliases.c.user_id, aliases.c.alias_key)
        for user_id, key in connection.execute(statement.where(aliases.c.user_id.in_(chunk))):
            merged[user_id].append(key)
    return {key: _person(key, user_id, merged) for key, user_id in final.items()}


def _person(key: str, user_id: str | None, merged: dict[str, list[str]]) -> Person:
    if user_id is None:
        return Person(frozenset(), frozenset([key[2:]]))
    others = merged[user_id]
    return Person(
        frozenset([user_id, *(one[2:] for one in others if one[:2] == "u:")]),
        frozenset(one[2:] for one in others if one[:2] == "s:"),
    )


def named_touches(
    connection: Connection, given: Sequence[ConversionEvent]
) -> dict[int, list[Touch]]:
    """By event: the answer that it names, where that is stored and held the item."""
    answers = get_impressions(connection, {one.recommendation_id or "" for one in given} - {""})
    found = {}
    for event in given:
        answer = answers.get(event.recommendation_id or "")
        for rank, (item_id, source, *_) in enumerate(answer.items if answer else (), 1):
            if answer is not None and item_id == event.item_id:
                found[event.row_id] = [
                    Touch(
                        answer.recommendation_id,
                        answer.created_at_us,
                        rank,
                        source,
                        answer.model_version or "",
                        answer.arm or "",
                        answer.scenario or "",
                    )
                ]
                break
    return found


def shown_touches(
    connection: Connection,
    given: Sequence[ConversionEvent],
    people: Mapping[str, Person],
    window_us: int,
) -> dict[int, list[Touch]]:
    """By event: the newest MAX_TOUCHES answers that showed its item to its user, newest first.

    Answers of the `window_us` before it count, to any id of the user, and in the event's session
    unless another user asked in it. `people`: of each owner key of `given`.
    """
    if not given:
        return {}
    of_user: dict[str, list[ConversionEvent]] = defaultdict(list)
    of_session: dict[str, list[ConversionEvent]] = defaultdict(list)
    for event in given:
        person = people[event.owner_key]
        for user_id in person.user_ids:
            of_user[user_id].append(event)
        own = {event.session_id} if event.session_id is not None else set()
        for session_id in person.session_ids | own:
            of_session[session_id].append(event)
    first = min(one.timestamp_us for one in given) - window_us
    last = max(one.timestamp_us for one in given)
    found: dict[int, dict[str, Touch]] = defaultdict(dict)
    for column, owners in (
        (impressions.c.user_id, of_user),
        (impressions.c.session_id, of_session),
    ):
        for answer in _answers(connection, column, owners, first, last):
            users = of_user.get(answer.user_id, []) if answer.user_id is not None else []
            sessions = of_session.get(answer.session_id, [])
            for event in users if column is impressions.c.user_id else sessions:
                if not event.timestamp_us - window_us <= answer.created_at_us <= event.timestamp_us:
                    continue
                ids = people[event.owner_key].user_ids
                if ids and answer.user_id is not None and answer.user_id not in ids:
                    continue  # another user's, in the same session
                touch = _shown(answer, event.item_id)
                if touch is not None:
                    found[event.row_id][touch.recommendation_id] = touch
    return {row_id: _newest(touches.values()) for row_id, touches in found.items()}


def stored_answers(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are still stored."""
    found: set[str] = set()
    for chunk in chunks(set(ids)):
        statement = select(impressions.c.recommendation_id)
        found |= set(
            connection.execute(
                statement.where(impressions.c.recommendation_id.in_(chunk))
            ).scalars()
        )
    return found


def _answers(
    connection: Connection, column: Any, owners: Collection[str], first_us: int, last_us: int
) -> Iterable[Any]:
    between: ColumnElement[bool] = impressions.c.created_at_us.between(first_us, last_us)
    names = ("recommendation_id", "created_at_us", "user_id", "session_id", "model_version")
    columns = [impressions.c[name] for name in (*names, "arm", "scenario", "items", "shown")]
    for chunk in chunks(owners):
        statement = select(*columns).where(column.in_(chunk), between)
        yield from connection.execute(statement)


def _shown(answer: Any, item_id: str) -> Touch | None:
    """The answer as a touch, where it really showed the item."""
    text = orjson.dumps(item_id).decode()
    if text not in answer.items or (answer.shown is not None and text not in answer.shown):
        return None
    if answer.shown is not None and item_id not in orjson.loads(answer.shown):
        return None
    for rank, (shown_id, source, *_) in enumerate(orjson.loads(answer.items), 1):
        if shown_id == item_id:
            return Touch(
                answer.recommendation_id,
                answer.created_at_us,
                rank,
                source,
                answer.model_version or "",
                answer.arm or "",
                answer.scenario or "",
            )
    return None


def _newest(touches: Iterable[Touch]) -> list[Touch]:
    """The newest MAX_TOUCHES, newest first; of one moment, by their ids."""
    ordered = sorted(touches, key=lambda one: (one.answered_at_us, one.recommendation_id))
    return ordered[: -MAX_TOUCHES - 1 : -1]


def chunks(values: Collection[Key]) -> Iterable[list[Key]]:
    """`values` in lists that fit into a statement."""
    ordered = sorted(values)
    return (ordered[at : at + CHUNK] for at in range(0, len(ordered), CHUNK))
