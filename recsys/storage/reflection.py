"""Hold `[events]` against the table it names, and say what is wrong with it, key by key.

Types come from the database's own catalogue, except in SQLite and of a query, where a column has the
type of its values. An index is looked for along which the table is read, and one by which the newest
events of a user are found; without the latter the mapping can be trained from but not served from.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, inspect, select, text
from sqlalchemy import types as sql
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

from recsys.config import EventsSettings
from recsys.data.events import MICROSECONDS
from recsys.data.iso_times import parse_iso
from recsys.data.timestamps import check_timezone
from recsys.errors import ConfigError, InputError
from recsys.storage.mapping import (
    ID_KINDS,
    KEYS,
    NUMBER_KINDS,
    TIME_KINDS,
    Kind,
    MappedColumn,
    Mapping,
    check_sql,
    escaped,
    near,
)
from recsys.storage.source_database import SourceDatabase

SAMPLE_ROWS = 1_000
READER = "recsys_reader"  # the account in the statements that are printed


@dataclass(frozen=True)
class Found:
    """An index or key: its columns in order."""

    columns: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True)
class Reflection:
    """A mapping that can be read, and what stands between it and serving."""

    mapping: Mapping
    is_table: bool  # indexes of a view or query cannot be seen
    indexes: list[Found]
    warnings: list[str] = field(default_factory=list)
    create_index: list[str] = field(default_factory=list)  # statements for the table's owner
    grant: str = ""

    def has_index(self, *meanings: str) -> bool:
        """Whether an index leads with the columns of these meanings."""
        wanted = tuple(self.mapping.columns[meaning].name for meaning in meanings)
        return any(one.columns[: len(wanted)] == wanted for one in self.indexes)

    @property
    def owner(self) -> str:
        """The meaning of the column that tells whose an event is."""
        return "user" if "user" in self.mapping.columns else "session"


def reflect(settings: EventsSettings, source: SourceDatabase) -> Reflection:
    """Resolve `settings`. Raises ConfigError naming the key and its value, SourceUnavailableError."""
    check_sql(settings)
    if settings.timezone:
        try:
            check_timezone(settings.timezone)
        except InputError as error:
            raise ConfigError("events.timezone", settings.timezone, error.expected) from None
    schema, _, name = settings.table.rpartition(".")
    with source.connect() as connection:
        declared = _declared(connection, settings, schema or None, name)
        _check_names(settings, list(declared))
        wanted = _wanted(settings)
        draft = _mapping(settings, source, schema or None, name, declared, wanted)
        sample = _sample(connection, draft, settings)
        columns = _kinds(draft, sample, settings)
        is_table = not settings.query and _is_table(connection, schema or None, name)
        indexes = _indexes(connection, schema or None, name) if is_table else []
    mapping = _mapping(settings, source, schema or None, name, columns, wanted)
    reflection = Reflection(mapping, is_table, indexes)
    if is_table and not reflection.has_index(mapping.along):
        mapping = _mapping(settings, source, schema or None, name, columns, wanted, chunked=False)
    return _judged(Reflection(mapping, is_table, indexes), source)


def _wanted(settings: EventsSettings) -> dict[str, str]:
    names = {meaning: getattr(settings, key) for meaning, key in KEYS.items()}
    return {meaning: name for meaning, name in names.items() if name}


def _mapping(
    settings: EventsSettings,
    source: SourceDatabase,
    schema: str | None,
    name: str,
    columns: dict[str, MappedColumn],
    wanted: dict[str, str],
    chunked: bool = True,
) -> Mapping:
    return Mapping(
        url=source.url.render_as_string(hide_password=False),
        dialect=source.dialect,
        schema=schema,
        table=name,
        query=settings.query,
        columns={meaning: columns[column] for meaning, column in wanted.items()},
        where=settings.where,
        timezone=settings.timezone or None,
        unit=settings.unit or None,
        default_type=settings.default_type,
        look_back_rows=settings.look_back_rows,
        look_back_seconds=settings.look_back_seconds,
        timeout_seconds=settings.timeout_seconds,
        chunked=chunked,
        by_event_id=settings.accept_posts,
    )


def _declared(
    connection: Connection, settings: EventsSettings, schema: str | None, name: str
) -> dict[str, MappedColumn]:
    """The columns there are. Raises ConfigError where there is no such table, or the query fails."""
    if settings.query:
        draft = text(f"SELECT * FROM ({escaped(settings.query)}) AS q LIMIT 0")  # noqa: S608
        try:
            names = list(connection.execute(draft).keys())
        except DBAPIError as error:
            raise ConfigError("events.query", settings.query, _refused(error)) from None
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            problem = f"the query gives column {twice[0]!r} twice"
            raise ConfigError("events.query", settings.query, problem)
        return {name: MappedColumn(name, "other") for name in names}
    if connection.dialect.name == "mysql":
        found = _mysql_columns(connection, schema, name)
    else:
        try:
            rows = inspect(connection).get_columns(name, schema)
        except NoSuchTableError:
            rows = []
        found = {
            row["name"]: MappedColumn(row["name"], _kind(row["type"]), _type_name(row["type"]))
            for row in rows
        }
    if not found:
        tables = _tables(connection, schema)
        shown = [f"{schema}.{table}" if schema else table for table in tables]
        problem = f"no such table or view; {near(settings.table, shown)}"
        raise ConfigError("events.table", settings.table, problem)
    return found


def _tables(connection: Connection, schema: str | None) -> list[str]:
    if connection.dialect.name == "mysql":
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = "
        query += "coalesce(:schema, DATABASE())"
        return sorted(connection.execute(text(query), {"schema": schema}).scalars())
    seen = inspect(connection)
    try:
        return sorted([*seen.get_table_names(schema), *seen.get_view_names(schema)])
    except SQLAlchemyError:  # no such schema
        return []


def _is_table(connection: Connection, schema: str | None, name: str) -> bool:
    if connection.dialect.name == "mysql":
        query = "SELECT table_type FROM information_schema.tables WHERE table_name = :name "
        query += "AND table_schema = coalesce(:schema, DATABASE())"
        found = connection.execute(text(query), {"schema": schema, "name": name}).scalar()
        return found == "BASE TABLE"
    return name in inspect(connection).get_table_names(schema)


def _check_names(settings: EventsSettings, names: list[str]) -> None:
    for meaning, name in _wanted(settings).items():
        if name not in names:
            problem = f"no such column; {near(name, names)}"
            raise ConfigError(f"events.{KEYS[meaning]}", name, problem)
    times = Counter(_wanted(settings).values())
    for meaning, name in _wanted(settings).items():
        # An order by time stamps, or an id that is the order, is no mistake; one id for two things is.
        if times[name] > 1 and meaning in ("user", "item", "session", "timestamp"):
            others = [m for m, n in _wanted(settings).items() if n == name and m != meaning]
            if set(others) <= {"order", "event_id"}:
                continue
            other = f"events.{KEYS[others[-1]]}"
            raise ConfigError(f"events.{KEYS[meaning]}", name, f"{other} names the same column")


def _sample(
    connection: Connection, draft: Mapping, settings: EventsSettings
) -> dict[str, list[Any]]:
    """Up to SAMPLE_ROWS values of each column. Raises ConfigError where `where` is refused."""
    source = draft.source()
    meanings = list(draft.columns)
    statement = select(
        *(draft.column(source, meaning).label(meaning) for meaning in meanings)
    ).where(*draft.wanted())
    try:
        rows = connection.execute(statement.limit(SAMPLE_ROWS)).all()
    except DBAPIError as error:
        key = "where" if settings.where else "query" if settings.query else "table"
        raise ConfigError(f"events.{key}", getattr(settings, key), _refused(error)) from None
    return {meaning: [row[at] for row in rows] for at, meaning in enumerate(meanings)}


def _kinds(
    draft: Mapping, sample: dict[str, list[Any]], settings: EventsSettings
) -> dict[str, MappedColumn]:
    """The columns with the kinds they really have, by name. Raises ConfigError."""
    by_values = draft.dialect == "sqlite" or bool(draft.query)
    found: dict[str, MappedColumn] = {}
    for meaning, one in draft.columns.items():
        key, values = f"events.{KEYS[meaning]}", [v for v in sample[meaning] if v is not None]
        if by_values and values:
            one = MappedColumn(one.name, _kind_of(values), one.declared)
        elif by_values and one.kind == "other":
            fallback: Kind = "integer" if meaning in ("order", "value") else "text"
            one = MappedColumn(one.name, fallback, one.declared)
        if sample[meaning] and not values and meaning in ("item", "timestamp"):
            raise ConfigError(
                key, one.name, f"empty in all of {len(sample[meaning])} rows looked at"
            )
        _check_kind(key, meaning, one, settings)
        if meaning == "timestamp":
            _check_times(one, values, settings)
        found[one.name] = one
    owners = [sample[m] for m in ("user", "session") if m in draft.columns]
    if owners[0] and all(all(v is None for v in values) for values in owners):
        key = "user_column" if "user" in draft.columns else "session_column"
        problem = f"empty in all of {len(owners[0])} rows looked at, so nobody's sequence is known"
        raise ConfigError(f"events.{key}", getattr(settings, key), problem)
    return found


def _check_kind(key: str, meaning: str, one: MappedColumn, settings: EventsSettings) -> None:
    allowed: Sequence[Kind]
    if meaning == "order":
        allowed, expected = ("integer",), "whole numbers, unique and growing"
    elif meaning == "timestamp":
        allowed, expected = TIME_KINDS, "a timestamp, a date, ISO 8601 text or a number"
    elif meaning == "value":
        allowed, expected = NUMBER_KINDS, "numbers"
    else:
        allowed, expected = ID_KINDS, "whole numbers, UUIDs or text"
    if one.kind not in allowed:
        declared = one.declared or one.kind
        raise ConfigError(key, one.name, f"a column of type {declared}; expected {expected}")


def _check_times(one: MappedColumn, values: list[Any], settings: EventsSettings) -> None:
    if one.kind in NUMBER_KINDS:
        if not settings.unit:
            first = float(values[0]) if values else 0.0
            fits = [u for u, f in MICROSECONDS.items() if 6e14 < first * f < 4e15]
            guess = f"; {values[0]} looks like {fits[0]}" if fits else ""
            problem = f"{one.name} holds numbers; expected s, ms, us or ns{guess}"
            raise ConfigError("events.unit", settings.unit, problem)
        return
    if one.kind == "text":
        import pyarrow as pa

        read = parse_iso(pa.array([str(value) for value in values], pa.string()))
        if len(values) and not read.readable.any():
            problem = (
                f"{values[0]!r} is no time; expected ISO 8601 text such as 2024-05-01T12:00:00Z"
            )
            raise ConfigError("events.timestamp_column", one.name, problem)
        zoned = bool(len(values)) and bool(read.has_offset[read.readable].all())
        if zoned:
            return
    if one.kind != "aware" and not settings.timezone:
        problem = f"the times of {one.name} have no time zone; expected a name such as UTC"
        raise ConfigError("events.timezone", settings.timezone, problem)


def _kind(declared: sql.TypeEngine[Any]) -> Kind:
    """The kind of a column by its declared type (PostgreSQL; SQLite, where it only guides)."""
    if isinstance(declared, sql.Boolean | sql.JSON | sql.ARRAY | sql.Interval | sql.LargeBinary):
        return "other"
    if isinstance(declared, sql.Integer):
        return "integer"
    if isinstance(declared, sql.Uuid):
        return "uuid"
    if isinstance(declared, sql.Float):
        return "float"
    if isinstance(declared, sql.Numeric):
        return "decimal" if declared.scale == 0 else "float"
    if isinstance(declared, sql.DateTime):
        return "aware" if declared.timezone else "naive"
    if isinstance(declared, sql.Date):
        return "date"
    if isinstance(declared, sql.String | sql.Enum) or str(declared) == "CITEXT":
        return "text"
    return "other"


def _type_name(declared: sql.TypeEngine[Any]) -> str:
    try:
        return str(declared)
    except SQLAlchemyError:
        return type(declared).__name__.upper()


def _kind_of(values: list[Any]) -> Kind:
    """The kind of a column by its values."""
    kinds: dict[type, Kind] = {
        bool: "other",
        int: "integer",
        float: "float",
        Decimal: "decimal",
        UUID: "uuid",
        str: "text",
        date: "date",
    }
    seen: set[Kind] = set()
    for value in values:
        if isinstance(value, datetime):
            seen.add("naive" if value.tzinfo is None else "aware")
        else:
            seen.add(kinds.get(type(value), "other"))
    if len(seen) == 1:
        return seen.pop()
    if seen <= {"integer", "float", "decimal"}:
        return "float"
    return "text" if seen <= {"integer", "float", "text"} else "other"


_MYSQL_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), "integer"),
    **dict.fromkeys(("float", "double"), "float"),
    **dict.fromkeys(
        ("char", "varchar", "text", "tinytext", "mediumtext", "longtext", "enum"), "text"
    ),
    "uuid": "uuid",
    "timestamp": "aware",  # stored in UTC, and read in it
    "datetime": "naive",
    "date": "date",
}


def _mysql_columns(
    connection: Connection, schema: str | None, name: str
) -> dict[str, MappedColumn]:
    query = """SELECT column_name, data_type, column_type, numeric_scale, character_maximum_length
        FROM information_schema.columns
        WHERE table_name = :name AND table_schema = coalesce(:schema, DATABASE())
        ORDER BY ordinal_position"""
    found = {}
    for row in connection.execute(text(query), {"schema": schema, "name": name}):
        kind = _MYSQL_KINDS.get(row[1].lower(), "other")
        if row[1].lower() == "decimal":
            kind = "decimal" if row[3] == 0 else "float"
        if row[1].lower() == "binary" and row[4] == 16:
            kind = "uuid_bytes"
        found[row[0]] = MappedColumn(row[0], kind, row[2])
    return found


def _indexes(connection: Connection, schema: str | None, name: str) -> list[Found]:
    """Indexes and keys of plain columns that hold every row."""
    if connection.dialect.name == "mysql":
        query = """SELECT index_name, column_name, sub_part, non_unique
            FROM information_schema.statistics
            WHERE table_name = :name AND table_schema = coalesce(:schema, DATABASE())
            ORDER BY index_name, seq_in_index"""
        parts: dict[str, list[Any]] = {}
        for row in connection.execute(text(query), {"schema": schema, "name": name}):
            parts.setdefault(row[0], []).append(row)
        found = []
        for rows in parts.values():
            plain = []
            for row in rows:
                if row[2] is not None or row[1] is None:  # of a part of the text, or an expression
                    break
                plain.append(row[1])
            found.append(Found(tuple(plain), not rows[0][3] and len(plain) == len(rows)))
        return found
    seen = inspect(connection)
    found = [Found(tuple(seen.get_pk_constraint(name, schema)["constrained_columns"]), True)]
    for one in seen.get_unique_constraints(name, schema):
        found.append(Found(tuple(one["column_names"]), True))
    for index in seen.get_indexes(name, schema):
        options = index.get("dialect_options", {})
        kind = options.get("postgresql_using", "btree")
        if kind != "btree" or options.get("postgresql_where") or options.get("sqlite_where"):
            continue
        columns: list[str] = []
        for part in index["column_names"]:
            if part is None:
                break
            columns.append(part)
        found.append(Found(tuple(columns), bool(index["unique"])))
    return [one for one in found if one.columns]


def _judged(reflection: Reflection, source: SourceDatabase) -> Reflection:
    """The same with what is missing, and the statements that would mend it."""
    mapping = reflection.mapping
    warnings: list[str] = []
    statements: list[str] = []
    quote = source.plain_dialect.identifier_preparer.quote_identifier
    table = ".".join(quote(part) for part in (mapping.schema, mapping.table) if part)

    def missing(*meanings: str) -> bool:
        if not reflection.is_table or reflection.has_index(*meanings):
            return False
        listed = ", ".join(quote(mapping.columns[meaning].name) for meaning in meanings)
        lacking = ("text", "longtext", "mediumtext", "blob")
        prefixed = [m for m in meanings if mapping.columns[m].declared.lower() in lacking]
        if mapping.dialect == "mysql" and prefixed:
            column = mapping.columns[prefixed[0]].name
            warnings.append(f"MySQL indexes column {column} only as VARCHAR: change its type first")
        statements.append(f"CREATE INDEX ON {table} ({listed});")
        return True

    ordered = "order" in mapping.columns
    if missing(reflection.owner, "timestamp"):
        warnings.append("serving needs an index on the user and time; training does not")
    has_sessions = reflection.owner == "user" and "session" in mapping.columns
    if has_sessions and missing("session", "timestamp"):
        warnings.append("a session's events are not read at request time without an index")
    if missing(mapping.along):
        warnings.append("without an index along which to read, each update reads the whole table")
    if ordered and reflection.is_table and not reflection.has_index("timestamp"):
        warnings.append(
            "popular items of the last days are not counted without an index on the time"
        )
    if ordered and reflection.is_table:
        name = mapping.columns["order"].name
        if not any(one.unique and one.columns == (name,) for one in reflection.indexes):
            warnings.append(f"no key says that {name} is unique; reading stops where it is not")
    if not reflection.is_table:
        warnings.append("indexes cannot be seen behind a view or query; a user's events are timed")
    if mapping.dialect != "postgresql":
        named = [s.replace("INDEX ON", f"INDEX recsys_{n} ON") for n, s in enumerate(statements, 1)]
        statements = named
    return Reflection(
        mapping,
        reflection.is_table,
        reflection.indexes,
        warnings,
        list(dict.fromkeys(statements)),
        _grant(mapping, table, quote),
    )


def _grant(mapping: Mapping, table: str, quote: Any) -> str:
    """What the account needs, as statements for the database's owner."""
    if mapping.dialect == "sqlite":
        return "the right to read the file and its folder"
    if not table:
        return f"GRANT SELECT ON … TO {READER};  -- each table that events.query reads"
    if mapping.dialect == "mysql":
        return f"GRANT SELECT ON {table} TO '{READER}'@'%';"
    usage = f"GRANT USAGE ON SCHEMA {quote(mapping.schema)} TO {READER}; " if mapping.schema else ""
    return f"{usage}GRANT SELECT ON {table} TO {READER};"


def time_of_one_user(reflection: Reflection, source: SourceDatabase) -> float | None:
    """Seconds that a view or query takes for the newest events of one user; None where it is empty."""
    mapping = reflection.mapping
    rows = mapping.source()
    owner, moment = mapping.column(rows, reflection.owner), mapping.column(rows, "timestamp")
    with source.connect() as connection:
        some = connection.execute(
            select(owner).where(owner.is_not(None), *mapping.wanted()).limit(1)
        ).scalar()
        if some is None:
            return None
        started = time.perf_counter()
        statement = select(moment).where(owner == some, *mapping.wanted())
        connection.execute(statement.order_by(moment.desc()).limit(100)).all()
        return time.perf_counter() - started


def _refused(error: DBAPIError) -> str:
    """Why the database refused trusted SQL of the operator, who may see its words."""
    said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason given"
    return f"the database refuses it: {said[:200]}"
