"""What is stored of a user: attributes, merging, erasure with a receipt, and taking an erased user back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys.config import Settings
from recsys.errors import ConflictError, NotFoundError
from recsys.events.identity import users_and_sessions
from recsys.events.times import rfc3339
from recsys.ingest.user_body import UserAttributes
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import (
    attribute_rows,
    erasure_rows,
    tombstone_rows,
    user_rows,
    version_rows,
)
from recsys.storage.entities.attribute_rows import StoredAttributes
from recsys.storage.entities.audit_rows import Actor, add_audit


@dataclass(frozen=True)
class Receipt:
    """What was erased with a user, and what becomes of the rest."""

    user_id: str
    erased_at: str  # RFC 3339
    merged_users: list[str]  # erased with the user
    merged_sessions: list[str]
    removed: dict[str, int]  # rows, by what they were
    notes: dict[str, str]  # what else there is -> what becomes of it


def merge(database: Database, actor: Actor, user_id: str, other: str, now_us: int) -> str:
    """Count the events of `other` ('u:<user_id>' or 's:<session_id>') as the user's from now on.

    The user it ends at. Raises ConflictError where that would be a circle, or the user was erased.
    """
    with database.begin() as connection:
        return merge_within(connection, actor, user_id, other, now_us)


def merge_within(
    connection: Connection, actor: Actor, user_id: str, other: str, now_us: int
) -> str:
    """As `merge`, in the caller's transaction; where it raises, nothing has changed."""
    merged = user_rows.merge(connection, user_id, other, now_us)
    details: dict[str, Any] = {"merged": "session" if other.startswith("s:") else "user"}
    if merged.attributes_left_out:
        details["attributes_left_out"] = merged.attributes_left_out
    subject = tombstone_rows.pseudonym(connection, merged.user_id)
    add_audit(connection, actor, "user.merge", subject, now_us, details)
    return merged.user_id


def set_attributes(
    database: Database, actor: Actor, given: UserAttributes, now_us: int
) -> StoredAttributes:
    """Put a user's attributes in place of all that are stored; where they are the same nothing changes.

    An id that was merged stands for the user that it was merged into. Raises ConflictError where the
    user was erased.
    """
    with database.begin() as connection:
        done = attribute_rows.put_attributes(connection, [given], "replace", now_us)
        if done.left_out:
            raise ConflictError(done.left_out[0][1])
        found = attribute_rows.get_attributes(connection, given.user_id)
        if found is None:
            raise NotFoundError("attributes of user", given.user_id)
        if not done.unchanged:
            _note_attributes(connection, actor, "set", found, now_us)
    return found


def delete_attributes(
    database: Database, actor: Actor, user_id: str, now_us: int
) -> StoredAttributes:
    """Remove a user's attributes; those that were removed. The events stay. Raises NotFoundError."""
    with database.begin() as connection:
        found = attribute_rows.delete_attributes(connection, user_id)
        if found is None:
            raise NotFoundError("attributes of user", user_id)
        _note_attributes(connection, actor, "delete", found, now_us)
    return found


def _note_attributes(
    connection: Connection, actor: Actor, verb: str, stored: StoredAttributes, now_us: int
) -> None:
    """The line tells how many there are, and nothing of the user."""
    subject = tombstone_rows.pseudonym(connection, stored.user_id)
    details = {"attributes": len(stored.attributes)}
    add_audit(connection, actor, f"attributes.{verb}", subject, now_us, details)


def erase(
    settings: Settings, database: Database, actor: Actor, user_id: str, now_us: int
) -> Receipt:
    """Delete all that is stored of a user and of whoever was merged with them, for good.

    Tombstones, hashes under the installation's own key, keep imports, retries and restored backups from
    bringing the user back. The audit log knows the user by the beginning of that hash alone.
    """
    with database.begin() as connection:
        until = erasure_rows.settled_quarantine(connection)
    with database.connect() as connection:
        scan = erasure_rows.scan_quarantine(connection, user_id, until)
    with database.begin(long=True) as connection:
        erasure_rows.keep_writers_away(connection)
        keys = erasure_rows.person_keys(connection, user_id)
        removed = erasure_rows.erase(connection, user_id, now_us, scan)
        erased = tombstone_rows.tombstone_name(connection, user_id)
        add_audit(connection, actor, "user.erase", erased, now_us, {"removed": removed})
    with database.connect() as connection:
        versions = version_rows.list_versions(connection, limit=10_000)
    merged, sessions = users_and_sessions(key for key in keys if key != f"u:{user_id}")
    notes = _notes(settings, sum(row.state != "deleted" for row in versions))
    return Receipt(user_id, rfc3339(now_us), merged, sessions, removed, notes)


def note_export(
    database: Database, actor: Actor, what: str, details: dict[str, str], now_us: int
) -> None:
    """Write down that `what` ('events', 'items') is exported, and how."""
    with database.begin() as connection:
        add_audit(connection, actor, f"{what}.export", "all", now_us, details)


def note_user_export(database: Database, actor: Actor, user_id: str, now_us: int) -> None:
    """Write down that all that is stored of a user is exported."""
    with database.begin() as connection:
        subject = tombstone_rows.pseudonym(connection, user_id)
        add_audit(connection, actor, "user.export", subject, now_us)


def _notes(settings: Settings, kept_versions: int) -> dict[str, str]:
    """What else there is of a user who was erased, and what becomes of it."""
    training = settings.training
    cold = f"at most {training.cold_start_days:g} days after" if training.warm_start else "with"
    mapped = {
        "mapped table": "was not touched: its rows of this user are hidden from training, serving "
        "and exports by the tombstone; delete them there yourself"
    }
    return {
        "caches": "the next request reads none of the user's events; a worker's live state drops them at "
        f"its next look at the log ({settings.serving.live_seconds:g} s), or once it has read it anew",
        "answers under way": "that no worker has stored yet are dropped instead",
        "quarantine": "rows went whose mapped columns name the user; of lines that could not be taken "
        "apart, and rows without those columns, all that hold the id",
        "audit log": "knows the user by the beginning of a keyed hash alone, as do its earlier lines",
        "counts": "by hour, day and item have no user in them and stay; popular items are counted "
        "anew, without this user, within a minute",
        "sequence files": "hold the user's events under a hash until the next refresh or training "
        "brings them up to date; nothing else reads them",
        "kNN index": f"the {kept_versions} stored versions hold sessions without user ids; those of "
        f"this user leave with the versions, of which {settings.registry.keep} are kept",
        "exports": "files written by `events export` and `recommend --all` are where you put them, as "
        "are the files that were imported; one that was uploaded and not imported goes within a day",
        **(mapped if settings.events.mapped else {}),
        "backups": "made before now hold the user: delete them; `recsys restore` into this database "
        "leaves the user out, into another one it cannot know: erase the user again there",
        "logs": "of a proxy, of traces and of the database hold addresses with ids, and are yours to "
        "delete",
        "trained weights": f"are learned anew, without this user, {cold} the next training from "
        "nothing; until then they hold numbers fitted to all users, and no id of this one",
    }


def allow_again(database: Database, actor: Actor, user_id: str, now_us: int) -> None:
    """Accept new events of an erased user. Raises InputError where the user was not erased."""
    with database.begin() as connection:
        tombstone_rows.allow_again(connection, user_id)
        subject = tombstone_rows.pseudonym(connection, user_id)
        add_audit(connection, actor, "user.allow", subject, now_us)
