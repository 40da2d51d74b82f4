"""Every table out of one snapshot, and back into a schema: the database's half of a backup.

Rows pass as Arrow record batches with the types of `tables`, the same for both databases, so what was
read from one kind can be loaded into the other. In SQLite the snapshot is a read transaction (WAL: it
holds up no writer), in PostgreSQL a REPEATABLE READ one, read through COPY.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
from adbc_driver_manager import Error as AdbcError
from adbc_driver_postgresql import dbapi as postgresql_adbc
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Float,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    delete,
    func,
    inspect,
    select,
    text,
    update,
)

from recsys.errors import ConflictError, InputError, StorageUnavailableError
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, key_values, version_rows
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema import downgrades, migrate
from recsys.storage.schema.tables import (
    job_runs,
    leases,
    metadata,
    model_files,
    stamps,
    stream_consumers,
    stream_partitions,
)

BATCH_ROWS = 8_192
MADE_BY_MIGRATIONS = {"alembic_version", "stamps", "installation"}  # hold rows in an empty database
KINDS: tuple[tuple[type[Any], pa.DataType], ...] = (  # narrower types first
    (Boolean, pa.bool_()),
    (SmallInteger, pa.int16()),
    (BigInteger, pa.int64()),
    (Integer, pa.int32()),
    (Float, pa.float64()),
    (Text, pa.string()),
)

# Versions travel as files of their own, wherever they are kept.
COPIED = [table for table in metadata.sorted_tables if table is not model_files]

Batches = Iterator[pa.RecordBatch]


def schema_of(table: Table) -> pa.Schema:
    """The Arrow schema in which a table's rows travel."""
    fields = []
    for column in table.columns:
        kinds = [kind for base, kind in KINDS if isinstance(column.type, base)]
        assert kinds, f"{column} is of a type that backups do not know"
        fields.append(pa.field(column.name, kinds[0], nullable=bool(column.nullable)))
    return pa.schema(fields)


@contextmanager
def snapshot(database: Database) -> Iterator[Callable[[Table], Batches]]:
    """A function that reads a table; all that it reads is of one moment.

    Raises StorageUnavailableError where the database cannot be read.
    """
    if database.dialect == "sqlite":
        with database.connect() as connection:
            connection.execute(text("SELECT 1 FROM alembic_version")).all()  # the moment
            yield lambda table: _through_sqlite(connection, table)
        return
    address = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with postgresql_adbc.connect(address) as held, held.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield lambda table: _through_copy(cursor, table)
    except AdbcError:
        raise StorageUnavailableError("the tables cannot be read from the database") from None


def _select(table: Table) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    keys = ", ".join(f'"{column.name}"' for column in table.primary_key)
    return f'SELECT {names} FROM "{table.name}" ORDER BY {keys}'  # noqa: S608 - names of `tables`


def _through_sqlite(connection: Connection, table: Table) -> Batches:
    driver = connection.connection.driver_connection
    assert driver is not None
    cursor = driver.execute(_select(table))
    schema = schema_of(table)
    while rows := cursor.fetchmany(BATCH_ROWS):
        columns = []
        for field, values in zip(schema, zip(*rows, strict=True), strict=True):
            if pa.types.is_boolean(field.type):  # SQLite has 0 and 1
                columns.append(pa.array(values, pa.int8()).cast(pa.bool_()))
            else:
                columns.append(pa.array(values, field.type))
        yield pa.record_batch(columns, schema=schema)


def _through_copy(cursor: Any, table: Table) -> Batches:
    cursor.execute(_select(table))
    schema = schema_of(table)
    for batch in cursor.fetch_record_batch():
        yield pa.record_batch(
            [batch.column(field.name).cast(field.type) for field in schema], schema=schema
        )


def is_empty(connection: Connection) -> bool:
    """Whether the database holds nothing that a restore would replace."""
    names = set(inspect(connection).get_table_names()) - MADE_BY_MIGRATIONS
    known = [table for table in metadata.sorted_tables if table.name in names]
    return not any(
        connection.execute(select(table.primary_key.columns[0]).limit(1)).first() for table in known
    )


def replace_all(
    connection: Connection,
    revision: str,
    order: Sequence[str],
    read: Callable[[str], Batches],
    now_us: int,
) -> dict[str, int]:
    """In the transaction at hand: the schema at `revision`, its tables' rows, and on to this
    release's schema; rows by table.

    `order`: the tables as they can be loaded, referenced ones first; `read` gives the rows of one.
    Raises InputError where they are not the tables and columns of that revision.
    """
    before = migrate.revision_of(connection)
    floor = _highest_stamp(connection) if before is not None else 0
    if before is not None and not migrate.knows(before):
        downgrades.drop_recorded(connection)
    elif before is not None:
        _delete_rows(connection)
        if before != revision:
            migrate.move(connection, "base")
    migrate.move(connection, revision)
    real = downgrades.present(connection) - {model_files.name}
    found = MetaData()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*expression-based index")  # goes with its table
        found.reflect(connection, only=sorted(real), resolve_fks=False)
    if real != set(order):
        odd = sorted(real ^ set(order))
        raise InputError("tables", odd, f"expected those of schema revision {revision}")
    for name in reversed(order):
        connection.execute(delete(found.tables[name]))
    counts = {}
    for name in order:
        counts[name] = _load(connection, found.tables[name], read(name))
    migrate.move(connection, "head")
    _settle(connection, floor, now_us)
    return counts


def _delete_rows(connection: Connection) -> None:
    names = set(inspect(connection).get_table_names())
    known = [table for table in metadata.sorted_tables if table.name in names]
    if connection.dialect.name == "postgresql":
        listed = ", ".join(f'"{table.name}"' for table in known)
        connection.execute(text(f"TRUNCATE {listed}"))
        return
    for table in reversed(known):
        connection.execute(delete(table))


def _load(connection: Connection, table: Table, batches: Batches) -> int:
    count = 0
    cursor = connection.connection.cursor()
    for batch in batches:
        unknown = sorted(set(batch.schema.names) ^ {column.name for column in table.columns})
        if unknown:
            raise InputError(f"columns of {table.name}", unknown, "expected those of its revision")
        names = ", ".join(f'"{name}"' for name in batch.schema.names)
        if connection.dialect.name == "postgresql":
            buffer = io.BytesIO()
            # Text is quoted and null is not, which is how COPY tells an empty text from none.
            options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
            pa_csv.write_csv(batch, buffer, options)
            with cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN (FORMAT csv)') as copy:
                copy.write(buffer.getbuffer())
        else:
            marks = ", ".join("?" * batch.num_columns)
            cursor.executemany(
                f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})',  # noqa: S608
                list(zip(*(column.to_pylist() for column in batch.columns), strict=True)),
            )
        count += batch.num_rows
    cursor.close()
    return count


def _highest_stamp(connection: Connection) -> int:
    if not inspect(connection).has_table("stamps"):
        return 0
    row = connection.execute(text("SELECT * FROM stamps")).first()
    return max(value for value in row if isinstance(value, int)) if row else 0


def _settle(connection: Connection, floor: int, now_us: int) -> None:
    """What must not be as it was: numbers go on, nobody leads, nothing runs, memory is stale."""
    if connection.dialect.name == "postgresql":
        for table in metadata.sorted_tables:
            column = table.autoincrement_column
            if column is not None and column.identity is not None:
                top = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                connection.execute(select(func.setval(sequence, top, False)))
    highest = max(floor, _highest_stamp(connection)) + 1
    values = {column.name: highest for column in stamps.columns if column.name != "id"}
    connection.execute(update(stamps).values(values))
    connection.execute(update(leases).values(holder=None, beats=leases.c.beats + 1))
    # Streams are read on from where the backup's events end, by whoever comes.
    connection.execute(delete(stream_consumers))
    taken = stream_partitions.c.token + 1
    connection.execute(update(stream_partitions).values(consumer=None, token=taken))
    connection.execute(
        update(job_runs)
        .where(job_runs.c.state.not_in(job_rows.ENDED))
        .values(state="failed", error="it ran when the backup was made", finished_at_us=now_us)
    )
    # Sequence files know their database by this name; those of before are of another one now.
    key_values.forget(connection, InstallationKey.DATABASE_ID)


def refuse_unless_empty(connection: Connection, replace: bool) -> None:
    """Raises ConflictError where a restore would replace something that nobody said it may, or a
    newer release's tables that cannot be told from others.
    """
    revision = migrate.revision_of(connection)
    if revision is not None and not migrate.knows(revision):
        if not replace:
            raise ConflictError(
                f"the database is of a newer release (schema {revision}); --replace drops its "
                "tables and puts the backup in their place"
            )
        downgrades.recorded(connection)
    elif revision is not None and not replace and not is_empty(connection):
        raise ConflictError(
            "the database holds data already; --replace puts the backup in its place"
        )


def forget_versions(connection: Connection, versions: Sequence[str]) -> None:
    """Versions whose files a backup does not have are deleted ones."""
    for version in versions:
        version_rows.set_state(connection, version, "deleted")
