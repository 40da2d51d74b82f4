"""Columns and indexes of a table, from the catalog of its database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy import types as sql
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError

from recsys.storage.external.mapped_column import Kind, MappedColumn


@dataclass(frozen=True)
class TableIndex:
    """An index or key: its columns in order."""

    columns: tuple[str, ...]
    unique: bool = False


def columns_of(connection: Connection, schema: str | None, name: str) -> dict[str, MappedColumn]:
    """The columns of a table or view, by name and of their declared kinds; none: no table."""
    if connection.dialect.name == "mysql":
        return _mysql_columns(connection, schema, name)
    try:
        rows = inspect(connection).get_columns(name, schema)
    except NoSuchTableError:
        rows = []
    return {
        row["name"]: MappedColumn(
            row["name"],
            _kind_of_type(row["type"]),
            _type_name(row["type"]),
            isinstance(row["type"], sql.Enum),
        )
        for row in rows
    }


def tables_in(connection: Connection, schema: str | None) -> list[str]:
    """Tables and views of a schema, sorted; none where there is no such schema."""
    if connection.dialect.name == "mysql":
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = "
        query += "coalesce(:schema, DATABASE())"
        return sorted(connection.execute(text(query), {"schema": schema}).scalars())
    seen = inspect(connection)
    try:
        return sorted([*seen.get_table_names(schema), *seen.get_view_names(schema)])
    except SQLAlchemyError:  # no such schema
        return []


def is_base_table(connection: Connection, schema: str | None, name: str) -> bool:
    """Whether it is a table, whose indexes can be seen, and no view."""
    if connection.dialect.name == "mysql":
        query = "SELECT table_type FROM information_schema.tables WHERE table_name = :name "
        query += "AND table_schema = coalesce(:schema, DATABASE())"
        found = connection.execute(text(query), {"schema": schema, "name": name}).scalar()
        return found == "BASE TABLE"
    return name in inspect(connection).get_table_names(schema)


def indexes_of(connection: Connection, schema: str | None, name: str) -> list[TableIndex]:
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
            found.append(TableIndex(tuple(plain), not rows[0][3] and len(plain) == len(rows)))
        return found
    seen = inspect(connection)
    found = [TableIndex(tuple(seen.get_pk_constraint(name, schema)["constrained_columns"]), True)]
    for one in seen.get_unique_constraints(name, schema):
        found.append(TableIndex(tuple(one["column_names"]), True))
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
        found.append(TableIndex(tuple(columns), bool(index["unique"])))
    return [one for one in found if one.columns]


def _kind_of_type(declared: sql.TypeEngine[Any]) -> Kind:
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
