"""Checks of whether an external table can be served from: its indexes, keys and rights.

The statements that would mend it are for the owner of the table. Without an index by which the newest
events of a user are found the mapping can be trained from but not served from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from recsys.errors import ConfigError
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.mapping import Mapping
from recsys.storage.external.table_catalog import TableIndex

SLOWEST_SECONDS = 0.25  # that a view may take for the newest events of one user
READER = "recsys_reader"  # the account in the statements that are printed


@dataclass(frozen=True)
class ResolvedMapping:
    """A mapping held against its table, with the advice of what its owner should add."""

    mapping: Mapping
    is_table: bool  # indexes of a view or query cannot be seen
    indexes: list[TableIndex]
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


def with_advice(resolved: ResolvedMapping, source: ExternalDatabase) -> ResolvedMapping:
    """`resolved` with a warning for what is missing, and the statements that would add it."""
    mapping = resolved.mapping
    warnings: list[str] = []
    statements: list[str] = []
    quote = source.plain_dialect.identifier_preparer.quote_identifier
    table = ".".join(quote(part) for part in (mapping.schema, mapping.table) if part)

    def missing(*meanings: str) -> bool:
        if not resolved.is_table or resolved.has_index(*meanings):
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
    if missing(resolved.owner, "timestamp"):
        warnings.append("serving needs an index on the user and time; training does not")
    has_sessions = resolved.owner == "user" and "session" in mapping.columns
    if has_sessions and missing("session", "timestamp"):
        warnings.append("a session's events are not read at request time without an index")
    if missing(mapping.along):
        warnings.append("without an index along which to read, each update reads the whole table")
    if ordered and missing("timestamp"):
        warnings.append(
            "popular items of the last days are not counted without an index on the time"
        )
    if ordered and resolved.is_table:
        name = mapping.columns["order"].name
        if not any(one.unique and one.columns == (name,) for one in resolved.indexes):
            warnings.append(f"no key says that {name} is unique; reading stops where it is not")
    if not resolved.is_table:
        warnings.append("indexes cannot be seen behind a view or query; a user's events are timed")
    if mapping.dialect != "postgresql":
        named = [s.replace("INDEX ON", f"INDEX recsys_{n} ON") for n, s in enumerate(statements, 1)]
        statements = named
    return ResolvedMapping(
        mapping,
        resolved.is_table,
        resolved.indexes,
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


def seconds_of_one_user(resolved: ResolvedMapping, source: ExternalDatabase) -> float | None:
    """Seconds that a view or query takes for the newest events of one user; None where it is empty."""
    mapping = resolved.mapping
    rows = mapping.source()
    owner, moment = mapping.column(rows, resolved.owner), mapping.column(rows, "timestamp")
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


def check_serving(resolved: ResolvedMapping, source: ExternalDatabase) -> None:
    """Raise ConfigError where a user's newest events would not be found through an index."""
    mapping = resolved.mapping
    key = "events.query" if mapping.query else "events.table"
    if resolved.is_table:
        if not resolved.has_index(resolved.owner, "timestamp"):
            statement = resolved.create_index[0]
            problem = f"serving needs an index to find a user's newest events: {statement}"
            raise ConfigError(key, mapping.shown_name, problem)
        return
    seconds = seconds_of_one_user(resolved, source)
    if seconds is not None and seconds > SLOWEST_SECONDS:
        problem = f"the newest events of one user took {seconds:.2f} s; expected at most "
        problem += f"{SLOWEST_SECONDS:g}: index what the view reads by user and time"
        raise ConfigError(key, mapping.shown_name, problem)
