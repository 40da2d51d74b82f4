"""Imports of files: what was read, by whom and how, and taking one back.

The events that a file brought bear the number of its import; so do its rows in quarantine. They lie
within the import's span of row numbers, by which they are found without an index of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from recsys.errors import ConflictError, NotFoundError
from recsys.events.times import DAY_US
from recsys.storage.entities import click_rows, conversion_rows, experiment_unit_rows
from recsys.storage.schema.tables import events, imports, rejected_events, removed_sequences

UNDO_ROWS = 50_000  # row numbers a transaction
MAX_SOURCE = 256
EVERY_SEQUENCE = 0  # no key has this hash: all sequence files are to be built anew
REMOVED = "removed_events"  # in an import's counts, once it has been taken back as a whole


@dataclass(frozen=True)
class ImportRow:
    """One import of a file."""

    id: int
    source: str
    options: dict[str, Any]
    actor: str
    started_at_us: int
    finished_at_us: int | None
    undone_at_us: int | None
    counts: dict[str, Any]  # read, accepted, duplicates, repeats, rejected, skipped, seconds
    first_row: int
    last_row: int

    @property
    def state(self) -> str:
        """'undone', 'finished', or 'unfinished' where it is under way or was ended."""
        if self.undone_at_us is not None:
            return "undone"
        return "unfinished" if self.finished_at_us is None else "finished"


@dataclass
class OpenImport:
    """The import at hand; its row is made in the transaction of the first rows that it brings."""

    source: str
    started_at_us: int
    options: Mapping[str, Any] = field(default_factory=dict)
    actor: str = "cli"
    id: int | None = None

    def begin(self, connection: Connection) -> int:
        """Its number, before rows of it are stored in this transaction."""
        if self.id is None:
            last_row = _last_row(connection)
            values = {
                "source": self.source[:MAX_SOURCE],
                "options": orjson.dumps(self.options).decode(),
                "actor": self.actor,
                "started_at_us": self.started_at_us,
                "first_row": last_row + 1,
                "last_row": last_row,
            }
            made = connection.execute(imports.insert().returning(imports.c.id), values)
            self.id = int(made.scalar_one())
        return self.id

    def reach(self, connection: Connection) -> None:
        """Note how far its rows go, after some were stored in this transaction.

        Raises ConflictError where it was taken back meanwhile; what was stored is then given up.
        """
        self._change(connection, {"last_row": _last_row(connection)})

    def finish(self, connection: Connection, counts: Mapping[str, Any], now_us: int) -> None:
        """Write down what became of the file's rows. Raises as `reach`."""
        self.begin(connection)
        values = {"counts": orjson.dumps(counts).decode(), "finished_at_us": now_us}
        self._change(connection, values)

    def _change(self, connection: Connection, values: Mapping[str, Any]) -> None:
        chosen = (imports.c.id == self.id) & imports.c.undone_at_us.is_(None)
        if not connection.execute(update(imports).where(chosen).values(**values)).rowcount:
            raise ConflictError(f"import {self.id} was undone meanwhile; nothing more is stored")


def list_imports(
    connection: Connection, limit: int = 50, before_id: int | None = None
) -> list[ImportRow]:
    """The newest imports, newest first; those before `before_id`, where that is given."""
    statement = select(imports).order_by(imports.c.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(imports.c.id < before_id)
    return [_read(row) for row in connection.execute(statement)]


def get_import(connection: Connection, import_id: int) -> ImportRow:
    """Raises NotFoundError where there is no import of that number."""
    row = connection.execute(select(imports).where(imports.c.id == import_id)).first()
    if row is None:
        raise NotFoundError("import", import_id)
    return _read(row)


def begin_undo(connection: Connection, import_id: int, now_us: int) -> ImportRow:
    """Let the import store nothing more, and sequence files know that events will be gone.

    An undo that was ended before its time is taken up again. Raises NotFoundError, and ConflictError
    where the import was taken back as a whole.
    """
    check_undoable(get_import(connection, import_id))
    connection.execute(update(imports).where(imports.c.id == import_id).values(undone_at_us=now_us))
    _build_sequences_anew(connection, now_us)
    return get_import(connection, import_id)


def check_undoable(one: ImportRow) -> None:
    """Raise ConflictError where an import was taken back as a whole."""
    if REMOVED in one.counts:
        raise ConflictError(f"import {one.id} was undone already")


def undo_rows(connection: Connection, one: ImportRow, first: int) -> tuple[int, set[int]]:
    """Delete the import's events among UNDO_ROWS row numbers from `first` on, with what was
    attributed of them.

    How many went, and the days (in µs) that they were of.
    """
    of_import = _span(one, first)
    conversion_rows.take_back(connection, of_import)
    click_rows.take_back(connection, of_import)
    experiment_unit_rows.take_back(connection, of_import)
    day = events.c.timestamp_us - events.c.timestamp_us % DAY_US
    days = set(connection.execute(select(day).where(of_import).distinct()).scalars())
    gone = connection.execute(delete(events).where(of_import)).rowcount
    experiment_unit_rows.read_again_from(connection)
    return gone, {int(one) for one in days}


def finish_undo(connection: Connection, one: ImportRow, removed: int, now_us: int) -> int:
    """Delete the import's rows in quarantine and write down that it is gone; how many rows."""
    chosen = rejected_events.c.import_id == one.id
    rejected = connection.execute(delete(rejected_events).where(chosen)).rowcount
    counts = {**one.counts, REMOVED: removed, "removed_quarantined": rejected}
    values = {"counts": orjson.dumps(counts).decode()}
    connection.execute(update(imports).where(imports.c.id == one.id).values(**values))
    _build_sequences_anew(connection, now_us)
    return rejected


def _span(one: ImportRow, first: int) -> ColumnElement[bool]:
    last = min(first + UNDO_ROWS - 1, one.last_row)
    return events.c.id.between(first, last) & (events.c.import_id == one.id)


def _build_sequences_anew(connection: Connection, now_us: int) -> None:
    row = {"sequence_hash": EVERY_SEQUENCE, "removed_at_us": now_us}
    connection.execute(removed_sequences.insert(), row)


def _last_row(connection: Connection) -> int:
    return int(connection.execute(select(func.max(events.c.id))).scalar() or 0)


def _read(row: Any) -> ImportRow:
    values = dict(row._mapping)
    values["options"], values["counts"] = orjson.loads(row.options), orjson.loads(row.counts)
    return ImportRow(**values)
