"""Who may come in: API keys, accounts of the dashboard, logging in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from recsys.errors import ConflictError
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import account_rows, key_rows
from recsys.storage.entities.account_rows import AccountRow
from recsys.storage.entities.audit_rows import Actor, add_audit
from recsys.storage.entities.passwords import hash_password, new_password

FIRST = "admin"  # the name of the first key and of the first account


def create_key(
    database: Database,
    actor: Actor,
    name: str,
    scopes: Sequence[str],
    origins: Sequence[str],
    now_us: int,
    new_name: bool = False,
) -> str:
    """Create an API key and return it whole, this once.

    `new_name`: refuse a name that a active key has; it is a form that was sent twice, most likely.
    Raises InputError, ConflictError.
    """
    with database.begin() as connection:
        if new_name:
            key_rows.check_new_name(connection, name)
        return _create_key(connection, actor, name, scopes, origins, now_us)


def revoke_key(database: Database, actor: Actor, key_id: str, now_us: int) -> str:
    """Refuse a key from the next request on; its name. Raises NotFoundError where no active key has the id."""
    with database.begin() as connection:
        name = key_rows.revoke_key(connection, key_id, now_us)
        add_audit(connection, actor, "key.revoke", key_id, now_us, {"name": name})
        return name


def create_account(
    database: Database, actor: Actor, name: str, password: str, role: str, now_us: int
) -> None:
    """Create an account of the dashboard. Raises InputError, or ConflictError where the name is taken."""
    account_rows.check_account(name, role)
    hashed = hash_password(password)  # which takes a while: others may write meanwhile
    with database.begin() as connection:
        _create_account(connection, actor, name, hashed, role, now_us)


def create_first(database: Database, actor: Actor, now_us: int) -> tuple[str, str | None]:
    """A key of scope admin and, where there is no account yet, an admin's: the key and the password.

    In one transaction: who has the one has the other.
    """
    password = new_password()
    hashed = hash_password(password)
    with database.begin() as connection:
        account_rows.keep_others_away(connection)  # two at once would both find no account
        key = _create_key(connection, actor, FIRST, ["admin"], (), now_us)
        if account_rows.list_accounts(connection):
            return key, None
        _create_account(connection, actor, FIRST, hashed, "admin", now_us)
        return key, password


def set_password(
    database: Database, actor: Actor, name: str, password: str, now_us: int
) -> AccountRow:
    """Change an account's password, end its sessions and lift its lock-out.

    Raises NotFoundError, or InputError for a password that is too short or too long.
    """
    hashed = hash_password(password)
    with database.begin() as connection:
        account_rows.set_password(connection, name, hashed)
        add_audit(connection, actor, "account.password", name, now_us)
        return account_rows.get_account(connection, name)


def set_role(database: Database, actor: Actor, name: str, role: str, now_us: int) -> None:
    """Change what an account may do; its sessions end.

    Raises NotFoundError, InputError, or ConflictError where nobody could administer any more.
    """
    with database.begin() as connection:
        before = account_rows.get_account(connection, name).role
        account_rows.set_role(connection, name, role)
        details = {"role": role, "before": before}
        add_audit(connection, actor, "account.role", name, now_us, details)


def set_disabled(database: Database, actor: Actor, name: str, disabled: bool, now_us: int) -> None:
    """Log an account out everywhere and refuse it, or let it log in again.

    Raises NotFoundError, or ConflictError where nobody could administer any more.
    """
    with database.begin() as connection:
        account_rows.set_disabled(connection, name, disabled, now_us)
        action = "account.disable" if disabled else "account.enable"
        add_audit(connection, actor, action, name, now_us)


def log_in(database: Database, visitor: Actor, checked: str, now_us: int) -> str:
    """Begin a session of the account whose password `visitor` gave; the token for its cookie.

    `checked`: the hash that the password was found to fit, which takes a while. Raises ConflictError
    where the account has another by now, or is disabled.
    """
    with database.begin() as connection:
        if account_rows.password_hash(connection, visitor.name, lock=True) != checked:
            raise ConflictError("the account was changed meanwhile")
        account = account_rows.get_account(connection, visitor.name)
        account_rows.clear_failures(connection, account.name, visitor.address)
        token = account_rows.begin_session(connection, account.name, visitor.address, now_us)
        actor = replace(visitor, role=account.role)
        add_audit(connection, actor, "session.begin", account.name, now_us)
        return token


def refuse_log_in(database: Database, visitor: Actor, now_us: int) -> None:
    """Write down an attempt whose name or password was wrong; it was counted before."""
    with database.begin() as connection:
        add_audit(connection, visitor, "session.refused", visitor.name, now_us)


def log_out(database: Database, actor: Actor, token: str, now_us: int) -> None:
    """End the session of `token`."""
    with database.begin() as connection:
        account_rows.end_session(connection, token)
        add_audit(connection, actor, "session.end", actor.name, now_us)


def _create_key(
    connection: Connection,
    actor: Actor,
    name: str,
    scopes: Sequence[str],
    origins: Sequence[str],
    now_us: int,
) -> str:
    key = key_rows.create_key(connection, name, list(scopes), now_us, origins)
    details = {
        "name": name,
        "scopes": list(dict.fromkeys(scopes)),
        "origins": list(dict.fromkeys(origins)),
    }
    add_audit(connection, actor, "key.create", key_rows.key_id_of(key), now_us, details)
    return key


def _create_account(
    connection: Connection, actor: Actor, name: str, hashed: str, role: str, now_us: int
) -> None:
    account_rows.create_account(connection, name, hashed, role, now_us)
    add_audit(connection, actor, "account.create", name, now_us, {"role": role})
