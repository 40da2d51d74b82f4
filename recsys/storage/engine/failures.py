"""Database drivers' errors, translated into this project's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    ProgrammingError,
    TimeoutError,
)

from recsys.errors import ConfigError, InputError, RecsysError, StorageUnavailableError
from recsys.storage.engine.failure_causes import cause_of

MISSING = ("no such table", "UndefinedTable", "no such column", "UndefinedColumn")


@contextmanager
def translated() -> Iterator[None]:
    """Driver errors as this project's own; their texts may hold SQL and values, so none is kept."""
    try:
        yield
    except TimeoutError:
        raise StorageUnavailableError("all database connections are in use") from None
    except DataError as error:
        raise InputError("value", "…", "expected one that the database can hold") from error
    except IntegrityError:  # a row that is there already, which callers ask about
        raise
    except DatabaseError as error:
        raise _translate(error) from error
    except InterfaceError as error:
        raise _translate(error) from error
    except sqlite3.OperationalError as error:
        raise _sqlite_error(str(error)) from error
    except NoSuchModuleError:
        raise ConfigError("database.url", "…", "expected a SQLite or PostgreSQL address") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "psycopg":
            raise
        # Where SQLAlchemy prepares a connection it passes on what the driver says.
        cause = cause_of(error)
        lost = StorageUnavailableError("the connection to the database is lost")
        raise (_unavailable(cause) if cause else lost) from error


def _translate(error: DBAPIError) -> Exception:
    text = str(error.orig)
    if any(mark in text or mark == type(error.orig).__name__ for mark in MISSING):
        return RecsysError("the database has no up-to-date tables; run: recsys db upgrade")
    cause = cause_of(error.orig) if error.orig is not None else None
    if isinstance(error, ProgrammingError):
        return error if cause is None else _unavailable(cause)
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_error(text)
    if isinstance(error, InternalError):  # such as a server that takes no writes
        return StorageUnavailableError("the database refused the statement")
    if cause is not None:
        return _unavailable(cause)
    return StorageUnavailableError("the database cannot be reached or refused the connection")


def _unavailable(cause: str) -> StorageUnavailableError:
    return StorageUnavailableError(f"the database (database.url): {cause}")


def _sqlite_error(text: str) -> RecsysError:
    reasons = {
        "locked": "the database is locked by another writer",
        "busy": "the database is locked by another writer",
        "unable to open": "the database file cannot be opened (recsys init makes it)",
        "readonly": "the database file is read-only",
        "full": "the disk is full",
        "disk I/O": "the disk refused a read or a write",
        "not a database": "the database file is no SQLite database",
        "malformed": "the database file is damaged",
    }
    for mark, reason in reasons.items():
        if mark in text:
            return StorageUnavailableError(reason)
    if any(mark in text for mark in MISSING):
        return RecsysError("the database has no up-to-date tables; run: recsys db upgrade")
    return StorageUnavailableError("the database refused the statement")
