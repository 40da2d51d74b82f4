"""What a restore must not undo: keys that were revoked, accounts that were closed or changed, users who were
erased, and the audit log.

A right that was taken away since the backup was made stays away. What was granted since is gone with the
rest. Sessions are never restored: everybody logs in again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, MetaData, Table, delete, inspect, select, update

from recsys.storage.engine.database import upsert
from recsys.storage.entities import erasure_rows, key_rows, key_values
from recsys.storage.entities.audit_rows import CLI, add_audit
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import (
    accounts,
    admin_sessions,
    api_keys,
    audit_log,
    installation,
    tombstones,
)

ACCOUNT = ("password_hash", "role", "disabled_at_us")  # as it is here, not as in the backup


@dataclass(frozen=True)
class LastingChanges:
    """What a database says before a backup takes its place; empty where it has no tables yet."""

    revoked: dict[str, int] = field(default_factory=dict)  # key id -> when
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> ACCOUNT
    tombstone_key: str | None = None
    tombstones: dict[str, int] = field(default_factory=dict)  # keyed hash -> when
    audit: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Carried:
    """What a restore kept of the changes since the backup, and who may come in now."""

    keys_revoked: int  # live in the backup
    accounts_kept: int  # whose password, role or state was another in the backup
    users_erased: int  # users and sessions of the backup who were erased since
    erasures_unknown: int  # of an installation of another key: they cannot be told in this backup
    audit_lines_kept: int
    active_keys: list[dict[str, Any]]  # key_id, name, scopes
    active_admins: list[str]

    def plain(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(vars(self))


def read_changes(connection: Connection, since_us: int) -> LastingChanges:
    """What must outlast the restore of a backup of `since_us`, whatever release's the tables are."""
    revoked = _rows(connection, api_keys, "key_id", "revoked_at_us")
    found = {row["name"]: row["value"] for row in _rows(connection, installation, "name", "value")}
    erased = _rows(connection, tombstones, "user_hash", "erased_at_us")
    kept = [column.name for column in audit_log.columns if column.name != "id"]
    return LastingChanges(
        revoked={row["key_id"]: row["revoked_at_us"] for row in revoked if row["revoked_at_us"]},
        accounts={row["name"]: row for row in _rows(connection, accounts, "name", *ACCOUNT)},
        tombstone_key=found.get(InstallationKey.TOMBSTONE_KEY.value),
        tombstones={row["user_hash"]: row["erased_at_us"] for row in erased},
        audit=[row for row in _rows(connection, audit_log, *kept) if row["at_us"] >= since_us],
    )


def carry_over(
    connection: Connection, changes: LastingChanges, now_us: int, revoke_keys: bool
) -> Carried:
    """Make the changes once more, in the rows of the backup. `revoke_keys`: revoke every key."""
    connection.execute(delete(admin_sessions))
    revoked = 0
    live = api_keys.c.revoked_at_us.is_(None)
    for key_id, at_us in changes.revoked.items():
        chosen = update(api_keys).where(api_keys.c.key_id == key_id, live)
        revoked += connection.execute(chosen.values(revoked_at_us=at_us)).rowcount
    if revoke_keys:
        every = update(api_keys).where(live).values(revoked_at_us=now_us)
        revoked += connection.execute(every).rowcount
    kept_accounts = 0
    for row in connection.execute(select(accounts)).all():
        here = changes.accounts.get(row.name)
        values = {} if here is None else {name: here[name] for name in ACCOUNT}
        if any(values[name] != row._mapping[name] for name in values):
            chosen_account = update(accounts).where(accounts.c.name == row.name)
            connection.execute(chosen_account.values(values))
            kept_accounts += 1
    unknown = _add_tombstones(connection, changes)
    erased = erasure_rows.erase_again(connection, now_us)
    lines = _add_audit_lines(connection, changes)
    keys = [key for key in key_rows.list_keys(connection) if key.revoked_at_us is None]
    admins = select(accounts.c.name).where(
        accounts.c.role == "admin", accounts.c.disabled_at_us.is_(None)
    )
    return Carried(
        keys_revoked=revoked,
        accounts_kept=kept_accounts,
        users_erased=erased,
        erasures_unknown=unknown,
        audit_lines_kept=lines,
        active_keys=[
            {"key_id": key.key_id, "name": key.name, "scopes": sorted(key.scopes)} for key in keys
        ],
        active_admins=list(connection.execute(admins.order_by(accounts.c.name)).scalars()),
    )


def note_restore(connection: Connection, name: str, details: dict[str, Any], now_us: int) -> None:
    """Write the restore of backup `name` into the audit log, whose lines are those of the backup now."""
    add_audit(connection, CLI, "backup.restore", name, now_us, details)


def _rows(connection: Connection, table: Table, *names: str) -> list[dict[str, Any]]:
    """These columns of a table as it is in the database; none where it lacks one of them."""
    found = inspect(connection)
    if not found.has_table(table.name):
        return []
    reflected = Table(table.name, MetaData(), autoload_with=connection, resolve_fks=False)
    if not set(names) <= set(reflected.columns.keys()):
        return []
    rows = connection.execute(select(*(reflected.c[name] for name in names)))
    return [dict(row._mapping) for row in rows]


def _add_tombstones(connection: Connection, changes: LastingChanges) -> int:
    """How many cannot be taken over: they are hashes under another key than the backup's."""
    if not changes.tombstones or changes.tombstone_key is None:
        return 0
    key = changes.tombstone_key
    if key_values.get_or_put(connection, InstallationKey.TOMBSTONE_KEY, lambda: key) != key:
        return len(changes.tombstones)
    rows = [
        {"user_hash": hashed, "erased_at_us": at_us} for hashed, at_us in changes.tombstones.items()
    ]
    statement = upsert(connection, tombstones).on_conflict_do_nothing(index_elements=["user_hash"])
    connection.execute(statement, rows)
    return 0


def _add_audit_lines(connection: Connection, changes: LastingChanges) -> int:
    """Append the lines that the backup does not have; how many."""
    rows = audit_log.c
    known = {
        tuple(row)
        for row in connection.execute(select(rows.at_us, rows.actor, rows.action, rows.subject))
    }
    new = [
        row
        for row in changes.audit
        if (row["at_us"], row["actor"], row["action"], row["subject"]) not in known
    ]
    if new:
        connection.execute(audit_log.insert(), new)
    return len(new)
