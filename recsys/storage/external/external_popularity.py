"""Popular items of an external table: users and sessions by item, under the rules of the rows' judge.

Its database counts the rows whose values are plain: those are events as they stand, and their ids are
their texts. Whether there are others (ids with blanks, decimals, control characters or beyond ASCII,
times written as text) the same pass over the table tells; those are read and judged, and their items are
counted anew, from pairs of item and owner. Where those are too many, all rows of the time are read.

Legend: n rows of a batch, P pairs of item and owner.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    func,
    not_,
    null,
    or_,
    select,
    type_coerce,
)

from recsys.events.array_types import BoolArray, Int64Array, UInt64Array
from recsys.events.fields import EARLIEST_US, MAX_FUTURE_SECONDS
from recsys.events.identity import hash_texts, key_hashes, mixed
from recsys.ingest.arrow_columns import as_ids, as_readable
from recsys.ingest.cells import MISSING_WORDS
from recsys.ingest.numeric_times import EARLIEST_NUMBER_US
from recsys.storage.entities.tombstone_rows import Tombstones
from recsys.storage.external.external_rows import ExternalRows, without_erased
from recsys.storage.external.mapped_column import NUMBER_KINDS, MappedColumn
from recsys.storage.external.row_judge import UUID_DIGITS, UUID_HYPHENED, RowJudge, batch_of
from recsys.text_rules import MAX_ID_LENGTH, MAX_TYPE_LENGTH

MAX_ODD_ROWS = 20_000  # that are judged one by one
MAX_ODD_ITEMS = 5_000  # that are counted anew
MAX_ERASED = 5_000  # that are named to the database
PART = 5_000  # rows of a result that are fetched together
STREAMED = {"stream_results": True}
LONGEST_WORD = max(map(len, MISSING_WORDS))  # that stands for no value
INT64 = (-(2**63), 2**63 - 1)
_LIMITS = {"event_type": MAX_TYPE_LENGTH}
_TEXTS = ("user", "session", "item", "event_type", "event_id")


class ItemOwners(NamedTuple):
    """How many had an event of an item."""

    item_id: str
    owners: int  # users, and sessions of no user
    users: int


class ExternalPopularity:
    """Counts of one mapping."""

    def __init__(self, rows: ExternalRows) -> None:
        self._mapping, self._rows = rows.mapping, rows
        self._source, self._columns = rows.table, rows.mapping.read_columns
        self._plain = _Plain(rows)

    def counts(
        self,
        since_us: int,
        until_us: int | None,
        posted: OwnerPairs | None = None,
        hidden: Tombstones | None = None,
    ) -> Iterator[ItemOwners]:
        """The items with events in [since_us, until_us), those of most owners first.

        Rows ahead of the clock, and those of `hidden`, who were erased, are left out. `posted`: pairs
        from elsewhere that count with the table's, each once; it is added to. Raises
        SourceUnavailableError.
        """
        now_us = time.time_ns() // 1_000
        numbers = self._mapping.columns["timestamp"].kind in NUMBER_KINDS
        first_us = max(since_us, EARLIEST_NUMBER_US if numbers else EARLIEST_US)
        last_us = now_us + MAX_FUTURE_SECONDS * 1_000_000
        end_us = last_us + 1 if until_us is None else min(until_us, last_us + 1)
        odd = OwnerPairs() if posted is None else posted
        with self._rows.source.connect(counting=True) as connection:
            pairs = self._pairs(connection, first_us, end_us, hidden)
            if pairs is not None and len(odd.items) <= MAX_ODD_ITEMS:
                counted = self._counted(connection, pairs)
                first = next(counted, None)
                if not odd.items and first is not None and first.item_id:
                    yield first
                    yield from counted
                    return
                counted.close()
                if self._add_odd(connection, odd, now_us, first_us, end_us, hidden):
                    self._add_plain(connection, odd, pairs)
                    anew = {"", *odd.items}
                    counted = self._counted(connection, pairs)
                    others = (one for one in counted if one.item_id not in anew)
                    yield from heapq.merge(others, odd.counts(), key=lambda one: -one.owners)
                    return
        for batch in self._rows.batches(now_us, since_us=first_us, hidden=hidden, waited_for=True):
            odd.add_events(batch, first_us, end_us)
        yield from odd.counts()

    def _add_odd(
        self,
        connection: Connection,
        odd: OwnerPairs,
        now_us: int,
        first_us: int,
        end_us: int,
        hidden: Tombstones | None,
    ) -> bool:
        """Add the events that are not plain; False where they are too many for that."""
        statement = select(*(self._mapping.selected(self._source, name) for name in self._columns))
        statement = statement.where(*self._plain.odd(first_us, end_us)).limit(MAX_ODD_ROWS + 1)
        found = [tuple(row) for row in connection.execute(statement)]
        if len(found) > MAX_ODD_ROWS:
            return False
        if found:
            events = RowJudge(self._mapping, now_us).judge(batch_of(found, self._columns)).events
            odd.add_events(without_erased(events, hidden), first_us, end_us)
        return len(odd.items) <= MAX_ODD_ITEMS

    def _add_plain(self, connection: Connection, odd: OwnerPairs, pairs: Select[Any]) -> None:
        """Add the plain events of the items of `odd`."""
        if not odd.items:
            return
        statement = pairs.where(self._plain.holds(), self._one_of("item", odd.items))
        for part in connection.execute(statement, execution_options=STREAMED).partitions(PART):
            columns = zip(("item", "user", "session"), zip(*part, strict=True), strict=True)
            odd.add(*(self._ids(meaning, values) for meaning, values in columns))

    def _counted(self, connection: Connection, pairs: Select[Any]) -> Generator[ItemOwners]:
        """The plain events, counted by the database; the rows that are not plain first, as of item ''."""
        found = pairs.subquery("pairs")
        owners, users = func.count().label("owners"), func.count(found.c.user_id)
        odd_first = case((found.c.item_id.is_(None), 0), else_=1)
        statement = select(found.c.item_id, owners, users).group_by(found.c.item_id)
        statement = statement.order_by(odd_first, owners.desc(), found.c.item_id)
        result = connection.execute(statement, execution_options=STREAMED)
        try:
            for part in result.partitions(PART):
                ids = self._ids("item", [row[0] for row in part]).to_pylist()
                for item_id, row in zip(ids, part, strict=True):
                    yield ItemOwners(item_id or "", int(row[1]), int(row[2]))
        finally:
            result.close()

    def _pairs(
        self, connection: Connection, first_us: int, end_us: int, hidden: Tombstones | None
    ) -> Select[Any] | None:
        """(item, user, session of no user) of the events, each once, of a row that is not plain with
        null for the item; None where the database cannot tell them.
        """
        if self._mapping.columns["timestamp"].kind == "text":
            return None
        user, session = (self._plain.owner(name) for name in ("user", "session"))
        unowned = session if "user" not in self._columns else case((user.is_(None), session))
        item = case((self._plain.holds(), self._plain.expression("item")))
        statement = select(
            item.label("item_id"), user.label("user_id"), unowned.label("session_id")
        )
        owned = or_(user.is_not(None), session.is_not(None))  # NaN is nobody
        statement = statement.where(*self._plain.inside(first_us, end_us), owned).distinct()
        for meaning, owner in (("user", user), ("session", unowned)):
            if hidden and meaning in self._columns:
                within = self._plain.inside(first_us, end_us)
                names = select(owner).where(*within, owner.is_not(None)).distinct()
                gone = self._erased(connection, meaning, names, hidden)
                if len(gone) > MAX_ERASED:
                    return None
                erased = and_(owner.is_not(None), self._one_of(meaning, gone))
                statement = statement.where(not_(erased)) if gone else statement
        return statement

    def _erased(
        self, connection: Connection, meaning: str, names: Select[Any], hidden: Tombstones
    ) -> list[str]:
        """The ids among `names`, users or sessions, who were erased; just above MAX_ERASED at most."""
        prefix, found = "u:" if meaning == "user" else "s:", list[str]()
        result = connection.execute(names, execution_options=STREAMED)
        for part in result.partitions(PART):
            ids = self._ids(meaning, [row[0] for row in part]).to_pylist()
            found += [one for one in ids if one is not None and hidden.covers(prefix + one)]
            if len(found) > MAX_ERASED:
                break
        result.close()
        return found

    def _one_of(self, meaning: str, ids: Collection[str]) -> ColumnElement[bool]:
        """Whether a plain value is one of `ids`."""
        if self._mapping.dialect == "sqlite" or self._mapping.columns[meaning].kind == "text":
            return self._plain.expression(meaning).in_(list(ids))
        keys = (self._mapping.key(meaning, one) for one in ids)
        column = self._mapping.column(self._source, meaning)
        return column.in_([key for key in keys if key is not None])

    def _ids(self, meaning: str, values: Sequence[Any]) -> pa.Array:
        """The ids of plain values (n,), as the rows' judge makes them."""
        if meaning not in self._columns:
            return pa.nulls(len(values), pa.string())
        columns = {meaning: MappedColumn("", self._columns[meaning].kind)}
        ids, _ = as_readable(batch_of([(value,) for value in values], columns).column(0))
        if self._columns[meaning].kind == "uuid_bytes":
            ids = pc.replace_substring_regex(ids, UUID_DIGITS, UUID_HYPHENED)
        return as_ids(ids)[0]


class OwnerPairs:
    """Pairs of item and owner, each counted once however often it is added."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}  # item id -> its number
        self._hashes: UInt64Array = np.zeros(0, np.uint64)  # (P,)
        self._of: Int64Array = np.zeros(
            0, np.int64
        )  # (P,), twice the item's number; + 1: of a user

    def add_events(
        self, events: pa.Table | pa.RecordBatch, first_us: int = 0, end_us: int = 2**62
    ) -> None:
        """Add the pairs of events in [first_us, end_us)."""
        times = events.column("timestamp_us")
        inside = pc.and_(pc.greater_equal(times, first_us), pc.less(times, end_us))
        events = events.filter(inside)
        columns = [events.column(name) for name in ("item_id", "user_id", "session_id")]
        self.add(*(c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns))

    def add(self, items: pa.Array, users: pa.Array, sessions: pa.Array) -> None:
        """Add pairs: ids (n,) of an item, of its user, and where that is null of its session."""
        if not len(items):
            return
        encoded = items.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        numbers = np.array([self.items.setdefault(one, len(self.items)) for one in names], np.int64)
        places = encoded.indices.to_numpy(zero_copy_only=False)
        of_user: BoolArray = pc.is_valid(users).to_numpy(zero_copy_only=False)
        owners = np.where(of_user, key_hashes(users, "u:"), key_hashes(sessions, "s:"))
        hashes = np.concatenate((self._hashes, mixed(hash_texts(names)[places], owners)))
        of = np.concatenate((self._of, 2 * numbers[places] + of_user))
        self._hashes, first = np.unique(hashes, return_index=True)
        self._of = of[first]

    def counts(self) -> list[ItemOwners]:
        """Those of most owners first."""
        found = np.bincount(self._of, minlength=2 * len(self.items)).reshape(-1, 2)
        counted = [
            ItemOwners(item_id, int(found[number].sum()), int(found[number, 1]))
            for item_id, number in self.items.items()
        ]
        return sorted(counted, key=lambda one: (-one.owners, one.item_id))


class _Plain:
    """The conditions under which a row of a mapping is an event as it stands."""

    def __init__(self, rows: ExternalRows) -> None:
        self._rows, self._mapping, self._source = rows, rows.mapping, rows.table
        self._kind = rows.mapping.columns["timestamp"].kind

    def expression(self, meaning: str) -> ColumnElement[Any]:
        """A column as it is read, told apart byte by byte."""
        found = self._mapping.told_apart(self._source, meaning)
        return type_coerce(found, Text) if self._texts(meaning) else found

    def owner(self, meaning: str) -> ColumnElement[Any]:
        """The user or session, null where a text stands for none."""
        if meaning not in self._mapping.columns:
            return null()
        found = self.expression(meaning)
        return case((self._empty(meaning), null()), else_=found) if self._texts(meaning) else found

    def odd(self, first_us: int, end_us: int) -> list[ColumnElement[bool]]:
        """Of the other rows that may be events of that time."""
        return [*self.inside(first_us, end_us), not_(self.holds()), *self._rows.possible()]

    def inside(self, first_us: int, end_us: int) -> list[ColumnElement[bool]]:
        """Of the rows with an item that may be of that time."""
        mapping, moment = self._mapping, self._mapping.column(self._source, "timestamp")
        inside = and_(
            moment >= mapping.literal("timestamp", mapping.time.not_before(first_us)),
            moment < mapping.literal("timestamp", mapping.time.not_before(end_us)),
        )
        if mapping.dialect == "sqlite":  # texts in a column of numbers lie behind all numbers
            texts = and_(moment >= mapping.literal_text(""), func.typeof(moment) == "text")
            inside = or_(inside, texts)
        return [*mapping.wanted(), inside, mapping.column(self._source, "item").is_not(None)]

    def holds(self) -> ColumnElement[bool]:
        """Whether a row that has its item and its place in the order is an event as it stands."""
        mapping = self._mapping
        found = [
            self._text(name) for name in _TEXTS if name in mapping.columns and self._texts(name)
        ]
        moment = mapping.column(self._source, "timestamp")
        order = mapping.column(self._source, "order") if "order" in mapping.columns else None
        if mapping.dialect == "sqlite":
            found.append(func.typeof(moment).in_(["integer", "real"]))
            if order is not None:
                found.append(func.typeof(order) == "integer")
        elif order is not None:
            found.append(order.between(*INT64))
        if mapping.dialect == "mysql" and self._kind not in NUMBER_KINDS:  # 2024-00-00
            found += [func.month(moment) > 0, func.dayofmonth(moment) > 0]
        return and_(*found) if found else func.coalesce(1, 1) == 1

    def _texts(self, meaning: str) -> bool:
        """Whether a column may hold texts."""
        return self._mapping.dialect == "sqlite" or self._mapping.columns[meaning].kind == "text"

    def _empty(self, meaning: str) -> ColumnElement[bool]:
        """Whether a value stands for none; short ones alone are compared."""
        short = self._size(meaning) <= LONGEST_WORD
        return and_(short, self.expression(meaning).in_(self._mapping.no_values()))

    def _size(self, meaning: str) -> ColumnElement[int]:
        """How long a text is: of ASCII alone its bytes are its characters."""
        text = self.expression(meaning)
        return func.length(text) if self._mapping.dialect == "sqlite" else func.octet_length(text)

    def _text(self, meaning: str) -> ColumnElement[bool]:
        """Whether a text is an id or type as it stands: ASCII without blanks at its ends, neither a
        number with decimals nor one that has lost its digits; or none.
        """
        column, text = self._mapping.column(self._source, meaning), self.expression(meaning)
        fits = [
            self._size(meaning).between(1, _LIMITS.get(meaning, MAX_ID_LENGTH)),
            not_(self._empty(meaning)),
        ]
        if self._mapping.dialect == "sqlite":
            fits += [
                *(text.not_like(pattern) for pattern in (" %", "% ", "%.%0", "%e+%")),
                not_(text.bool_op("GLOB")("*[^ -~]*")),
                func.instr(text, func.char(0)) == 0,
                func.typeof(column) != "blob",
            ]
        else:
            written = self._mapping.written(self._source, meaning)
            operator = "~" if self._mapping.dialect == "postgresql" else "REGEXP"
            # One expression: each look at a text takes a quarter of a microsecond.
            fits.append(not_(written.bool_op(operator)("[^ -~]|^ | $|[.].*0$|[eE][+]")))
        if meaning == "item":
            return and_(*fits)
        return or_(column.is_(None), self._empty(meaning), and_(*fits))
