"""Accounts of the dashboard, who is logged in, and failed attempts.

A session's token is known to its cookie alone; the row holds its SHA-256. A password's change, a
role's change and disabling end all sessions of the account.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update

from recsys.errors import ConflictError, InputError, NotFoundError
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import upsert
from recsys.storage.schema.tables import accounts, admin_sessions, login_failures
from recsys.text_rules import counted_address

ROLES = ("viewer", "operator", "admin")  # each may do what those before it may
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SEEN_EVERY_US = 60 * 1_000_000  # a session's row is touched no more often
LOCK_US = 15 * 60 * 1_000_000  # failures are counted, and lock, for so long
ACCOUNT_FAILURES = 5
ADDRESS_FAILURES = 30
MAX_SESSIONS = 20  # of one account; the oldest ends


@dataclass(frozen=True)
class AccountRow:
    """An account without its password."""

    name: str
    role: str
    created_at_us: int
    disabled_at_us: int | None


@dataclass(frozen=True)
class SessionRow:
    """Who is behind a token."""

    name: str
    role: str
    created_at_us: int
    seen_at_us: int
    flash: tuple[str, str] | None  # kind, message


@dataclass(frozen=True)
class SeenRow:
    """When and from where an account was last used."""

    seen_at_us: int
    address: str | None


def create_account(connection: Connection, name: str, hashed: str, role: str, now_us: int) -> None:
    """`hashed`: of the password. Raises ConflictError where the name is taken."""
    statement = (
        upsert(connection, accounts)
        .values(name=name, password_hash=hashed, role=role, created_at_us=now_us)
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(accounts.c.name)
    )
    if connection.execute(statement).one_or_none() is None:
        raise ConflictError(f"there is an account {name} already")


def check_account(name: str, role: str) -> None:
    """Raises InputError for what no account can be."""
    if not NAME.fullmatch(name):
        raise InputError("name", name, "expected 1 to 64 letters, digits or . _ @ -")
    _check_role(role)


def get_account(connection: Connection, name: str) -> AccountRow:
    """Raises NotFoundError."""
    row = connection.execute(_ACCOUNT.where(accounts.c.name == name)).one_or_none()
    if row is None:
        raise NotFoundError("account", name)
    return AccountRow(*row)


def list_accounts(connection: Connection) -> list[AccountRow]:
    return [AccountRow(*row) for row in connection.execute(_ACCOUNT.order_by(accounts.c.name))]


def password_hash(connection: Connection, name: str, lock: bool = False) -> str | None:
    """The hash of an account that may log in; None where there is none.

    With `lock`, as it stays until the end of this transaction.
    """
    statement = select(accounts.c.password_hash).where(
        accounts.c.name == name, accounts.c.disabled_at_us.is_(None)
    )
    wanted = statement.with_for_update() if lock else statement
    return connection.execute(wanted).scalar_one_or_none()


def keep_others_away(connection: Connection) -> None:
    """Let nobody else look for accounts, to act on what there is, until the end of this transaction."""
    advisory_lock.take_turns(connection, "accounts")


def set_password(connection: Connection, name: str, hashed: str) -> None:
    """Change it to the one of that hash, end all sessions of the account and forget its failures.

    Raises NotFoundError.
    """
    changed = connection.execute(
        update(accounts).where(accounts.c.name == name).values(password_hash=hashed)
    )
    if changed.rowcount == 0:
        raise NotFoundError("account", name)
    end_sessions(connection, name)
    clear_failures(connection, name, None)


def set_role(connection: Connection, name: str, role: str) -> None:
    """Raises NotFoundError, InputError, or ConflictError where nobody could administer any more."""
    _check_role(role)
    if role != "admin":
        _check_another_admin(connection, name)
    get_account(connection, name)
    connection.execute(update(accounts).where(accounts.c.name == name).values(role=role))
    end_sessions(connection, name)


def set_disabled(connection: Connection, name: str, disabled: bool, now_us: int) -> None:
    """Raises NotFoundError, or ConflictError where nobody could administer any more."""
    get_account(connection, name)
    if disabled:
        _check_another_admin(connection, name)
    connection.execute(
        update(accounts)
        .where(accounts.c.name == name)
        .values(disabled_at_us=now_us if disabled else None)
    )
    end_sessions(connection, name)


def begin_session(connection: Connection, name: str, address: str | None, now_us: int) -> str:
    """Log an account in; the token for its cookie."""
    token = secrets.token_urlsafe(32)
    values = {
        "token_sha256": _digest(token),
        "account": name,
        "created_at_us": now_us,
        "seen_at_us": now_us,
        "address": address,
    }
    connection.execute(admin_sessions.insert(), values)
    newest = (
        select(admin_sessions.c.token_sha256)
        .where(admin_sessions.c.account == name)
        .order_by(admin_sessions.c.seen_at_us.desc(), admin_sessions.c.token_sha256)
        .limit(MAX_SESSIONS)
    )
    kept = list(connection.execute(newest).scalars())
    connection.execute(
        delete(admin_sessions).where(
            admin_sessions.c.account == name, admin_sessions.c.token_sha256.not_in(kept)
        )
    )
    return token


def find_session(
    connection: Connection, token: str, now_us: int, idle_us: int, life_us: int
) -> SessionRow | None:
    """Who is logged in with `token`: not idle for `idle_us`, not older than `life_us`, not disabled."""
    row = connection.execute(
        select(
            accounts.c.name,
            accounts.c.role,
            admin_sessions.c.created_at_us,
            admin_sessions.c.seen_at_us,
            admin_sessions.c.flash,
        )
        .join(accounts, accounts.c.name == admin_sessions.c.account)
        .where(
            admin_sessions.c.token_sha256 == _digest(token),
            admin_sessions.c.seen_at_us > now_us - idle_us,
            admin_sessions.c.created_at_us > now_us - life_us,
            accounts.c.disabled_at_us.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    flash = tuple(json.loads(row.flash)) if row.flash else None
    return SessionRow(row.name, row.role, row.created_at_us, row.seen_at_us, flash)


def touch_session(connection: Connection, token: str, now_us: int) -> None:
    """Say that the session is in use."""
    _update_session(connection, token, seen_at_us=now_us)


def set_flash(connection: Connection, token: str, kind: str, message: str) -> None:
    """Leave a message for the session's next page; `kind`: 'good' or 'bad'."""
    _update_session(connection, token, flash=json.dumps([kind, message[:500]]))


def clear_flash(connection: Connection, token: str) -> None:
    _update_session(connection, token, flash=None)


def end_session(connection: Connection, token: str) -> None:
    """Log out."""
    connection.execute(
        delete(admin_sessions).where(admin_sessions.c.token_sha256 == _digest(token))
    )


def end_sessions(connection: Connection, name: str) -> None:
    """Log an account out everywhere."""
    connection.execute(delete(admin_sessions).where(admin_sessions.c.account == name))


def delete_old_sessions(connection: Connection, now_us: int, idle_us: int, life_us: int) -> int:
    """Delete what is too old to be of use; how many sessions went."""
    gone = connection.execute(
        delete(admin_sessions).where(
            or_(
                admin_sessions.c.seen_at_us <= now_us - idle_us,
                admin_sessions.c.created_at_us <= now_us - life_us,
            )
        )
    )
    return gone.rowcount


def begin_attempt(connection: Connection, name: str, address: str, now_us: int) -> int:
    """Count an attempt to log in before its password is looked at; 0, or for how many more seconds
    no attempt is taken.

    Counted first, so that many at once get no more tries than one after another. Names that do not
    exist are counted alike.
    """
    advisory_lock.take_turns(connection, "log-ins")
    connection.execute(
        delete(login_failures).where(login_failures.c.first_at_us <= now_us - LOCK_US)
    )
    limits = {_subject("account", name): ACCOUNT_FAILURES}
    limits[_subject("address", address)] = ADDRESS_FAILURES
    found = connection.execute(
        select(login_failures).where(login_failures.c.subject.in_(list(limits)))
    ).all()
    waits = [
        row.first_at_us + LOCK_US - now_us for row in found if row.failures >= limits[row.subject]
    ]
    if waits:
        return max(1, -(-max(waits) // 1_000_000))
    statement = upsert(connection, login_failures)
    statement = statement.on_conflict_do_update(
        index_elements=["subject"],
        set_={"failures": login_failures.c.failures + 1},
    )
    rows = [{"subject": one, "failures": 1, "first_at_us": now_us} for one in sorted(limits)]
    connection.execute(statement, rows)
    return 0


def sessions_by_account(
    connection: Connection, now_us: int, idle_us: int, life_us: int
) -> dict[str, SeenRow]:
    """Of each account that is logged in, its session used last."""
    sessions = admin_sessions.c
    statement = (
        select(sessions.account, sessions.seen_at_us, sessions.address)
        .where(sessions.seen_at_us > now_us - idle_us, sessions.created_at_us > now_us - life_us)
        .order_by(sessions.seen_at_us)
    )
    return {
        row.account: SeenRow(row.seen_at_us, row.address) for row in connection.execute(statement)
    }


def clear_failures(connection: Connection, name: str, address: str | None) -> None:
    """The attempt was good: forget the account's failures, and take back one of the address."""
    account = login_failures.c.subject == _subject("account", name)
    connection.execute(delete(login_failures).where(account))
    if address is not None:
        connection.execute(
            update(login_failures)
            .where(login_failures.c.subject == _subject("address", address))
            .values(failures=login_failures.c.failures - 1)
        )


_ACCOUNT = select(
    accounts.c.name, accounts.c.role, accounts.c.created_at_us, accounts.c.disabled_at_us
)


def _update_session(connection: Connection, token: str, **values: object) -> None:
    connection.execute(
        update(admin_sessions)
        .where(admin_sessions.c.token_sha256 == _digest(token))
        .values(**values)
    )


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise InputError("role", role, f"expected one of {', '.join(ROLES)}")


def _check_another_admin(connection: Connection, name: str) -> None:
    advisory_lock.take_turns(connection, "accounts")
    others = [
        row
        for row in list_accounts(connection)
        if row.role == "admin" and row.disabled_at_us is None and row.name != name
    ]
    if not others and get_account(connection, name).role == "admin":
        raise ConflictError(f"{name} is the only admin left")


def _subject(kind: str, value: str) -> str:
    if kind == "address":
        value = counted_address(value)
    return f"{kind}:{_digest(value)[:32]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
