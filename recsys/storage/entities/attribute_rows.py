"""Users' attributes as rows. They are a person's: those of an id that was merged into another are stored
under that other one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select

from recsys.errors import InputError
from recsys.ingest.user_body import Mode, UserAttributes, with_attributes
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.entities import event_rows
from recsys.storage.entities.tombstone_rows import is_erased
from recsys.storage.schema.tables import aliases, events, users

CHUNK = 500  # ids a statement
PART = 10_000  # users of a read
ERASED = "the user was erased"


@dataclass(frozen=True, slots=True)
class StoredAttributes:
    """A user's attributes as they are shown."""

    user_id: str
    attributes: dict[str, Any]
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True)
class Put:
    """What became of the attributes given of some users."""

    new: int = 0  # users that had none
    changed: int = 0  # users that had others
    unchanged: int = 0
    left_out: tuple[tuple[int, str], ...] = ()  # (index of a row that was given, why)


def get_attributes(connection: Connection, user_id: str) -> StoredAttributes | None:
    """A user's attributes; of an id that was merged into a user, that user's. None where there are none."""
    final = _final(connection, [user_id])[user_id]
    row = connection.execute(select(users).where(users.c.user_id == final)).first()
    return None if row is None else _stored(row)


def list_attributes(
    connection: Connection, limit: int, after: str | None = None
) -> list[StoredAttributes]:
    """A page of users with attributes, by the bytes of their ids; `after`: the last of the page before."""
    statement = select(users).order_by(users.c.user_id).limit(limit)
    if after is not None:
        statement = statement.where(users.c.user_id > after)
    return [_stored(row) for row in connection.execute(statement)]


def attribute_names(connection: Connection) -> set[str]:
    """The names of all users' attributes. Every user with attributes is read."""
    found: set[str] = set()
    statement = select(users.c.user_id, users.c.properties).order_by(users.c.user_id).limit(PART)
    rows = connection.execute(statement).all()
    while rows:
        for row in rows:
            found |= set(orjson.loads(row.properties))
        rows = connection.execute(statement.where(users.c.user_id > rows[-1].user_id)).all()
    return found


def put_attributes(
    connection: Connection, given: Sequence[UserAttributes], mode: Mode, now_us: int
) -> Put:
    """Store the attributes of some users; `mode` says what becomes of those stored.

    Of several rows of a user each is put after those before it. Left out are users who were erased,
    and rows with which a user would have too many attributes, or too large ones.
    """
    if not given:
        return Put()
    advisory_lock.lock_shared(connection)  # an erasure sees these, or this the tombstone
    advisory_lock.take_turns(connection, "merges")  # nobody is merged away meanwhile
    rows, done = _changes(connection, given, mode, now_us)
    statement = upsert(connection, users)
    changed = {name: statement.excluded[name] for name in ("properties", "updated_at_us")}
    statement = statement.on_conflict_do_update(index_elements=["user_id"], set_=changed)
    if rows:
        connection.execute(statement, rows)
    return done


def changes_nothing(
    connection: Connection, given: Sequence[UserAttributes], mode: Mode
) -> Put | None:
    """What `put_attributes` would return where nothing would be stored by it; else None."""
    rows, done = _changes(connection, given, mode, 0)
    return None if rows else done


def delete_attributes(connection: Connection, user_id: str) -> StoredAttributes | None:
    """Remove a user's attributes; those that were removed."""
    advisory_lock.lock_shared(connection)
    advisory_lock.take_turns(connection, "merges")
    found = get_attributes(connection, user_id)
    if found is not None:
        connection.execute(delete(users).where(users.c.user_id == found.user_id))
    return found


def merge_attributes(connection: Connection, target: str, other: str, now_us: int) -> int:
    """Give `target` what it lacks of the attributes of the user `other`, who has none from then on; how
    many found no room. For a transaction that merges.
    """
    chosen = select(users).where(users.c.user_id.in_([target, other]))
    found = {row.user_id: row for row in connection.execute(chosen.with_for_update())}
    if other not in found:
        return 0
    theirs = found[other]
    connection.execute(delete(users).where(users.c.user_id == other))
    if target not in found:
        moved = {**theirs._mapping, "user_id": target, "updated_at_us": now_us}
        connection.execute(users.insert(), moved)
        return 0
    merged, no_room = found[target].properties, 0
    for name, value in orjson.loads(theirs.properties).items():
        try:
            merged = with_attributes(merged, orjson.dumps({name: value}).decode(), "fill")
        except InputError:
            no_room += 1
    kept = users.update().where(users.c.user_id == target)
    connection.execute(kept.values(properties=merged, updated_at_us=now_us))
    return no_room


def delete_idle(
    connection: Connection, before_us: int, limit: int, after: str = ""
) -> tuple[int, str | None]:
    """Of the next `limit` users whose attributes last changed before then, delete those of users who
    have no event; how many, and the id to go on after (None: these were the last).
    """
    old = select(users.c.user_id).where(users.c.user_id > after, users.c.updated_at_us < before_us)
    names = connection.execute(old.order_by(users.c.user_id).limit(limit)).scalars().all()
    active: set[str] = set()
    for chunk in _chunks(names):
        own = select(events.c.user_id).where(events.c.user_id.in_(chunk)).distinct()
        active.update(connection.execute(own).scalars())
    merged: dict[str, list[str]] = {}
    for chunk in _chunks([name for name in names if name not in active]):
        pairs = select(aliases.c.user_id, aliases.c.alias_key).where(aliases.c.user_id.in_(chunk))
        for user_id, key in connection.execute(pairs):
            merged.setdefault(user_id, []).append(key)
    for user_id, keys in merged.items():
        one = select(events.c.id).where(event_rows.owned_by(keys)).limit(1)
        if connection.execute(one).first() is not None:
            active.add(user_id)
    for chunk in _chunks([name for name in names if name not in active]):
        chosen = delete(users).where(users.c.user_id.in_(chunk), users.c.updated_at_us < before_us)
        connection.execute(chosen)
    return len(names) - len(active), names[-1] if len(names) == limit else None


def merged_ids(connection: Connection, user_ids: Sequence[str]) -> set[str]:
    """Those of `user_ids` that were merged into another user."""
    return {user_id for user_id, final in _final(connection, user_ids).items() if user_id != final}


def _changes(
    connection: Connection, given: Sequence[UserAttributes], mode: Mode, now_us: int
) -> tuple[list[dict[str, Any]], Put]:
    """The rows to be written, and what is to be told of them."""
    final = _final(connection, [one.user_id for one in given])
    erased = is_erased(connection, {f"u:{name}" for pair in final.items() for name in pair})
    known = {row["user_id"]: row for row in _rows(connection, set(final.values()))}
    texts: dict[str, str] = {}
    left_out = []
    for index, one in enumerate(given):
        user_id = final[one.user_id]
        if not erased.isdisjoint((f"u:{one.user_id}", f"u:{user_id}")):
            left_out.append((index, ERASED))
            continue
        before = texts.get(user_id, known[user_id]["properties"] if user_id in known else "{}")
        try:
            texts[user_id] = with_attributes(before, one.attributes, mode)
        except InputError as error:
            left_out.append((index, str(error)))
    rows, new = [], 0
    for user_id, text in texts.items():
        if user_id not in known:
            new += 1
            rows.append(
                {
                    "user_id": user_id,
                    "properties": text,
                    "created_at_us": now_us,
                    "updated_at_us": now_us,
                }
            )
        elif known[user_id]["properties"] != text:
            rows.append({**known[user_id], "properties": text, "updated_at_us": now_us})
    counts = Put(new, len(rows) - new, len(texts) - len(rows), tuple(left_out))
    return rows, counts


def _rows(connection: Connection, user_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    for chunk in _chunks(sorted(user_ids)):
        found = connection.execute(select(users).where(users.c.user_id.in_(chunk)))
        yield from (dict(row) for row in found.mappings())


def _final(connection: Connection, user_ids: Sequence[str]) -> dict[str, str]:
    """The user whom each of `user_ids` counts as."""
    final = {user_id: user_id for user_id in user_ids}
    for chunk in _chunks([f"u:{user_id}" for user_id in final]):
        pairs = select(aliases.c.alias_key, aliases.c.user_id).where(aliases.c.alias_key.in_(chunk))
        final |= {key[2:]: user_id for key, user_id in connection.execute(pairs)}
    return final


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(names), CHUNK):
        yield names[at : at + CHUNK]


def _stored(row: Any) -> StoredAttributes:
    times = (row.created_at_us, row.updated_at_us)
    return StoredAttributes(row.user_id, orjson.loads(row.properties), *times)
