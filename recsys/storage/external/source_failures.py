"""Errors of the drivers that read an external table, translated into this project's own.

A value that a database or driver cannot convert is no outage: nobody else is to go without the table.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from sqlalchemy.exc import DataError, DBAPIError, TimeoutError

from recsys.errors import SourceDataError, SourceUnavailableError
from recsys.storage.engine.failure_causes import NO_GRANT, cause_of

UNREADABLE_VALUE = "the mapped event table holds a value that its database or driver cannot convert"
# Of a date, number or text that is none, or out of range; PyMySQL calls some of them operational.
_MYSQL_VALUE_ERRORS = {1264, 1292, 1365, 1366, 1367, 1411, 1416, 1525, 1690, 3854}


@contextmanager
def translated() -> Iterator[None]:
    """Driver errors as this project's own; their texts may hold SQL and values, so none is kept."""
    try:
        yield
    except TimeoutError:
        message = "all connections to the mapped event table are in use"
        raise SourceUnavailableError(message) from None
    except DataError as error:
        raise SourceDataError(UNREADABLE_VALUE) from error
    except DBAPIError as error:
        if _is_of_values(error):
            raise SourceDataError(UNREADABLE_VALUE) from error
        raise SourceUnavailableError(_reason(error)) from error
    except sqlite3.Error as error:
        raise SourceUnavailableError(_reason(error)) from error
    except (UnicodeError, OverflowError) as error:  # a driver's own, of a value it cannot write
        raise SourceDataError(UNREADABLE_VALUE) from error
    except RuntimeError as error:
        if cause_of(error) is None:
            raise
        raise SourceUnavailableError(_reason(error)) from error


@contextmanager
def stream_translated() -> Iterator[None]:
    """The same for what reads whole columns."""
    try:
        yield
    except AdbcError as error:
        if (error.sqlstate or "")[:2] == "22":  # data exceptions
            raise SourceDataError(UNREADABLE_VALUE) from error
        raise SourceUnavailableError(_reason(error)) from error
    except (OSError, pa.ArrowException) as error:  # in the middle of a stream
        raise SourceUnavailableError(_reason(error)) from error


def _is_of_values(error: DBAPIError) -> bool:
    """Whether MySQL means a value, though it calls the error another."""
    arguments: tuple[object, ...] = getattr(error.orig, "args", ())
    return bool(arguments) and arguments[0] in _MYSQL_VALUE_ERRORS


def _reason(error: Exception) -> str:
    """Why a read failed, in words that hold no SQL."""
    inner = error.orig if isinstance(error, DBAPIError) else error
    kind, said = type(inner).__name__, str(inner)
    if kind == "QueryCanceled" or re.search(
        r"max_statement_time|maximum statement|canceling", said
    ):
        return "the mapped event table answered too slowly (events.timeout_seconds)"
    cause = cause_of(inner or error)
    if cause == NO_GRANT:
        return f"the mapped event table may not be read: {NO_GRANT}"
    known = f" (events.url): {cause}" if cause else " cannot be reached or refused the statement"
    return f"the database of the mapped event table{known}"
