"""Resolve `[events]` against the table it names; what is wrong is told key by key.

Types come from the database's own catalogue, except in SQLite and of a query, where a column has the
type of its values. An index is looked for along which the table is read, and one by which the newest
events of a user are found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from recsys.config import EventsSettings
from recsys.errors import ConfigError, InputError, shown
from recsys.ingest.timestamps import check_timezone
from recsys.storage.engine.failure_causes import NO_GRANT, cause_of
from recsys.storage.external.column_kinds import infer_kinds
from recsys.storage.external.external_database import ExternalDatabase
from recsys.storage.external.mapped_column import MappedColumn
from recsys.storage.external.mapping import KEYS, Mapping
from recsys.storage.external.operator_sql import check_sql, escaped
from recsys.storage.external.serving_checks import ResolvedMapping, with_advice
from recsys.storage.external.table_catalog import columns_of, indexes_of, is_base_table, tables_in

SAMPLE_ROWS = 1_000


def resolve_mapping(settings: EventsSettings, source: ExternalDatabase) -> ResolvedMapping:
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
        columns = infer_kinds(draft, sample, settings)
        is_table = not settings.query and is_base_table(connection, schema or None, name)
        indexes = indexes_of(connection, schema or None, name) if is_table else []
    mapping = _mapping(settings, source, schema or None, name, columns, wanted)
    resolved = ResolvedMapping(mapping, is_table, indexes)
    if is_table and not resolved.has_index(mapping.along):
        mapping = _mapping(settings, source, schema or None, name, columns, wanted, chunked=False)
    return with_advice(ResolvedMapping(mapping, is_table, indexes), source)


def _wanted(settings: EventsSettings) -> dict[str, str]:
    names = {meaning: getattr(settings, key) for meaning, key in KEYS.items()}
    return {meaning: name for meaning, name in names.items() if name}


def _mapping(
    settings: EventsSettings,
    source: ExternalDatabase,
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
    found = columns_of(connection, schema, name)
    if not found:
        tables = tables_in(connection, schema)
        shown = [f"{schema}.{table}" if schema else table for table in tables]
        unseen = (
            ", or no GRANT for it" if connection.dialect.name == "mysql" else ""
        )  # which hides the others
        problem = f"no such table or view{unseen}; {near(settings.table, shown)}"
        raise ConfigError("events.table", settings.table, problem)
    return found


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


def near(name: str, names: Sequence[str]) -> str:
    """The names most like `name`, for a message."""
    import difflib

    folded = {one.lower(): one for one in names}
    found = difflib.get_close_matches(name.lower(), list(folded), 3, 0.5)
    listed = ", ".join(folded[one] for one in found) or ", ".join(names[:20])
    return f"did you mean {listed}?" if found else f"there are: {shown(listed, 400)[1:-1]}"


def _refused(error: DBAPIError) -> str:
    """Why the database refused trusted SQL of the operator, who may see its words."""
    if error.orig is not None and cause_of(error.orig) == NO_GRANT:
        return f"it may not be read: {NO_GRANT}"
    said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason given"
    return f"the database refuses it: {said[:200]}"
