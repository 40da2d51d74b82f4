"""Events as columns: the bulk read behind training and export, through ADBC into Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from sqlalchemy import text

from recsys.errors import StorageUnavailableError
from recsys.events.fields import EVENT_COLUMNS, EVENT_FIELDS, SEQUENCE_FIELDS
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import USER_BUCKETS
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database

SEQUENCE_COLUMNS = ", ".join([*(one.name for one in SEQUENCE_FIELDS), "id AS position"])
STORE_COLUMNS = f"user_bucket, {SEQUENCE_COLUMNS}"
OWNER_COLUMNS = "item_id, user_id, session_id, timestamp_us"
EXPORT_COLUMNS = ", ".join(EVENT_COLUMNS)
BATCH_ROWS = 65_536
BUSY_MS = 20_000

_TYPES = {
    **{one.name: one.arrow_type for one in EVENT_FIELDS},
    "position": pa.int64(),
    "user_bucket": pa.int64(),
}


def read_frame(database: Database, since_us: int = 0, aliases: bool = True) -> EventFrame:
    """All events since `since_us` as an event frame; ids merged into a user count as that user.

    Raises StorageUnavailableError where the database cannot be read.
    """
    builder = EventFrameBuilder()
    merged = all_aliases(database) if aliases else {}
    for batch in read_batches(database, SEQUENCE_COLUMNS, since_us):
        builder.append(batch)
    return builder.build(merged)


def read_sample(database: Database, events: int, total: int) -> EventFrame:
    """Whole users, chosen by the hash of their id: about `events` events of the `total` there are.

    At least one bucket of users in USER_BUCKETS is read. Raises StorageUnavailableError.
    """
    buckets = max(1, min(USER_BUCKETS, round(USER_BUCKETS * events / max(total, 1))))
    return _frame(read_batches(database, SEQUENCE_COLUMNS, buckets=buckets))


def read_newest(database: Database, events: int) -> EventFrame:
    """The last `events` that arrived, or fewer. Raises StorageUnavailableError."""
    first, last = id_span(database)
    ids = (max(first, last - events + 1), last + 1)
    return _frame(read_batches(database, SEQUENCE_COLUMNS, ids=ids))


def _frame(batches: Iterator[pa.RecordBatch]) -> EventFrame:
    builder = EventFrameBuilder()
    for batch in batches:
        builder.append(batch)
    return builder.build()


def read_batches(
    database: Database,
    columns: str,
    since_us: int = 0,
    *,
    in_order: bool = False,
    ids: tuple[int, int] | None = None,
    buckets: int | None = None,
    alone: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Record batches of `columns` (one of this module's constants), in no order unless asked.

    `ids`: of rows whose id lies in [first, end) alone. `buckets`: of users of the first so many alone.
    `alone`: this process has no other connection to the database. Only then is a SQLite file read
    through ADBC, which brings a SQLite library of its own: where two of them have a file open in one
    process, closing it in one drops the locks of the other (sqlite.org/howtocorrupt.html, 2.2.1).
    """
    order = " ORDER BY id" if in_order else ""
    wanted = [f"timestamp_us >= {int(since_us)}"] if since_us > 0 else []
    wanted += [f"id >= {int(ids[0])}", f"id < {int(ids[1])}"] if ids is not None else []
    wanted += [f"user_bucket < {int(buckets)}"] if buckets is not None else []
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    query = f"SELECT {columns} FROM events{where}{order}"  # noqa: S608
    if database.dialect == "sqlite" and (database.file is None or not alone):
        yield from _through_driver(database, query)
        return
    # Here, for they bring pandas along, which takes long to load and nobody needs who only serves.
    from adbc_driver_postgresql import dbapi as postgresql_adbc
    from adbc_driver_sqlite import dbapi as sqlite_adbc

    try:
        if database.dialect == "sqlite":
            connection = sqlite_adbc.connect(f"file:{database.file}?mode=ro")
        else:
            address = database.url.set(drivername="postgresql")
            connection = postgresql_adbc.connect(address.render_as_string(hide_password=False))
        with connection, connection.cursor() as cursor:
            if database.dialect == "sqlite":
                # Processes that open the file at once wait for each other.
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
                cursor.fetchall()
                cursor.adbc_statement.set_options(
                    **{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)}
                )
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                yield _typed(batch)
    except AdbcError:
        raise StorageUnavailableError("the events cannot be read from the database") from None


# Asked apart: SQLite answers each from the ends of the table, both together by reading all of it.
_SPAN = text("SELECT (SELECT min(id) FROM events), (SELECT max(id) FROM events)")


def id_span(database: Database, settled: bool = False) -> tuple[int, int]:
    """The smallest and the largest id of an event; (0, -1) where there is none.

    `settled`: every smaller id that will ever be there is there, for it waits for those who write.
    Raises StorageUnavailableError where one of them takes too long.
    """
    waits = settled and database.dialect == "postgresql"  # SQLite has one writer at a time
    with database.begin() if waits else database.connect() as connection:
        if waits:
            advisory_lock.lock_exclusive(connection)
        first, last = connection.execute(_SPAN).one()
    return (0, -1) if last is None else (int(first), int(last))


def _through_driver(database: Database, query: str) -> Iterator[pa.RecordBatch]:
    with database.connect() as connection:
        result = connection.execution_options(stream_results=True).execute(text(query))
        names = list(result.keys())
        for rows in result.partitions(BATCH_ROWS):
            columns = zip(*rows, strict=True)
            yield _typed(
                pa.record_batch(
                    [
                        pa.array(column, _TYPES.get(name, pa.string()))
                        for name, column in zip(names, columns, strict=True)
                    ],
                    names=names,
                )
            )


def _typed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in this project's types: SQLite tells a column's type by the rows it happens to see."""
    arrays = []
    for name in batch.schema.names:
        wanted = _TYPES.get(name, pa.string())
        column = batch.column(name)
        arrays.append(column if column.type == wanted else column.cast(wanted))
    return pa.record_batch(arrays, names=batch.schema.names)


def all_aliases(database: Database) -> dict[str, str]:
    """Whose each merged key is now: 'u:<user_id>' or 's:<session_id>' -> 'u:<user_id>'."""
    with database.connect() as connection:
        rows = connection.execute(text("SELECT alias_key, user_id FROM aliases"))
        return {row.alias_key: f"u:{row.user_id}" for row in rows}
