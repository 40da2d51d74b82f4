"""The mapping of an external table: which column means what, its kind, and how SQL writes its values.

The one text of an id, everywhere: a whole number is its decimal digits, a UUID its lower-case
hyphenated form, text is itself. A request's id is turned into the column's type, never the column into
text, so that an index on it is used.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Label,
    LargeBinary,
    Numeric,
    String,
    Text,
    and_,
    bindparam,
    cast,
    collate,
    column,
    false,
    func,
    literal_column,
    not_,
    or_,
    table,
    text,
)
from sqlalchemy.sql import quoted_name

from recsys.events.times import DAY_US, HOUR_US
from recsys.ingest.cells import MISSING_WORDS, written_forms
from recsys.ingest.layouts import TABLE_MEANINGS
from recsys.storage.external.mapped_column import (
    MappedColumn,
    integer_bounds,
    sqlite_text,
)
from recsys.storage.external.operator_sql import escaped
from recsys.storage.external.time_column import TimeColumn
from recsys.text_rules import MAX_ID_LENGTH

# Meaning of a column -> its key in [events].
KEYS = {meaning: f"{meaning}_column" for meaning in (*TABLE_MEANINGS, "order")}
SLACK_US = 3 * HOUR_US  # by which clocks that are put back may err
READ = (*TABLE_MEANINGS, "order")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,64})", re.ASCII)
FORMS = len(written_forms("7"))  # those of a whole number, which are the most


@dataclass(frozen=True)
class Mapping:
    """Plain values all, so that it can be handed to another process."""

    url: str = field(repr=False)
    dialect: str
    schema: str | None
    table: str  # '' where there is a query
    query: str
    columns: dict[str, MappedColumn]  # by meaning, as in KEYS
    where: str
    timezone: str | None
    unit: str | None
    default_type: str
    look_back_rows: int
    look_back_seconds: float
    timeout_seconds: float
    chunked: bool  # whether an index leads with the column it is read along
    by_event_id: bool  # whether posted events stand beside: what is one event is told by its id

    @property
    def read_columns(self) -> dict[str, MappedColumn]:
        """The columns of an event, by meaning, in the order in which they are read."""
        return {name: self.columns[name] for name in READ if name in self.columns}

    @property
    def along(self) -> str:
        """The meaning of the column that it is read along."""
        return "order" if "order" in self.columns else "timestamp"

    @property
    def identity(self) -> Literal["order", "content", "event_id"]:
        """What makes two rows the same event: their order, their event id, or their whole content."""
        if self.by_event_id:
            return "event_id"
        return "order" if "order" in self.columns else "content"

    @property
    def fingerprint(self) -> str:
        """A hash of the mapping, which changes where other rows, or the same otherwise, would be read."""
        plain = (
            re.sub(r"://[^@/]*@", "://", self.url),
            self.schema,
            self.table,
            self.query,
            sorted((meaning, one.name, one.kind) for meaning, one in self.columns.items()),
            self.where,
            self.timezone,
            self.unit,
            self.default_type,
            self.identity,
        )
        return hashlib.sha256(repr(plain).encode()).hexdigest()[:32]

    @property
    def shown_name(self) -> str:
        """For messages."""
        name = f"{self.schema}.{self.table}" if self.schema else self.table
        return name or "the query of events.query"

    def source(self) -> FromClause:
        """What rows are selected from."""
        names = dict.fromkeys(one.name for one in self.columns.values())
        columns: list[Any] = [column(quoted_name(name, True)) for name in names]
        if self.query:
            return text(escaped(self.query)).columns(*columns).subquery("mapped_events")
        schema = quoted_name(self.schema, True) if self.schema else None
        return table(quoted_name(self.table, True), *columns, schema=schema)

    def column(self, source: FromClause, meaning: str) -> ColumnElement[Any]:
        """The column of `source` that means `meaning`."""
        found: ColumnElement[Any] = source.c[self.columns[meaning].name]
        return found

    @property
    def time(self) -> TimeColumn:
        """How the time column writes its moments."""
        return TimeColumn(self.columns["timestamp"].kind, self.unit, self.timezone)

    def selected(self, source: FromClause, meaning: str) -> ColumnElement[Any]:
        """The same as it is read: of a type that the drivers give as whole columns."""
        found, one = self.column(source, meaning), self.columns[meaning]
        if self.dialect == "sqlite":
            found = sqlite_text(found, meaning)
        elif self.dialect == "postgresql":
            plain = one.declared.upper().startswith(("TEXT", "VARCHAR"))
            if one.kind == "decimal" and meaning != "timestamp":
                found = cast(func.nullif(found, literal_column("'NaN'")), Text)
            elif one.kind in ("uuid", "decimal") or (one.kind == "text" and not plain):
                found = cast(found, Text)  # of a CHAR this drops the blanks it is filled up with
        elif one.kind in ("decimal", "uuid"):
            found = cast(found, String)
        elif one.kind == "uuid_bytes":
            found = func.lower(func.hex(found))
        return found.label(meaning)

    def wanted(self) -> list[ColumnElement[bool]]:
        """What every row must meet."""
        return [literal_column(f"({self.where})")] if self.where else []

    def equals(
        self, source: FromClause, meaning: str, parameter: ColumnElement[Any]
    ) -> ColumnElement[bool]:
        """Whether a column holds the value of `parameter`, which `key` made; for its index to find."""
        found, one = self.column(source, meaning), self.columns[meaning]
        if self.dialect == "sqlite" and (self.query or not one.declared or one.declared == "NULL"):
            # Without a type of its own a column tells 7 from '7', which are one id.
            return or_(found == parameter, found == cast(parameter, Numeric))
        if self.dialect == "postgresql" and one.enumerated:
            return cast(found, Text) == parameter  # no other text can be compared with it
        return found == parameter

    def may_be_padded(self, meaning: str) -> bool:
        """Whether ids of a column may be written otherwise than they are read (`written_forms`)."""
        one = self.columns[meaning]
        return self.dialect == "sqlite" or (one.kind == "text" and not one.enumerated)

    def padded(
        self, source: FromClause, meaning: str, parameter: ColumnElement[Any]
    ) -> ColumnElement[bool]:
        """Whether a column holds the value of `parameter` in another of its forms, the parameters
        form_0 and so on; for its index to find.
        """
        found = self.column(source, meaning)
        forms = found.in_([bindparam(f"form_{number}") for number in range(FORMS)])
        return and_(forms, not_(self.equals(source, meaning, parameter)))

    def holds(self, source: FromClause, meaning: str) -> ColumnElement[bool]:
        """Whether there is a value: neither null nor a text that stands for none."""
        found, kind = self.column(source, meaning), self.columns[meaning].kind
        if kind != "text" and self.dialect != "sqlite":
            return found.is_not(None)
        trimmed = func.trim(cast(found, Text))
        return and_(found.is_not(None), not_(trimmed.in_(self.no_values())))

    def no_values(self) -> list[ColumnElement[str]]:
        """Texts that stand for no value, as SQL that needs no parameter."""
        return [self.literal_text(word) for word in ("", *MISSING_WORDS)]

    def literal_text(self, value: str) -> ColumnElement[Any]:
        """A text as SQL that needs no parameter."""
        quoted = value.replace("'", "''")
        if self.dialect == "mysql":
            quoted = quoted.replace("\\", "\\\\")
        return literal_column(f"'{quoted}'")

    def told_apart(self, source: FromClause, meaning: str) -> ColumnElement[Any]:
        """An id as it is read, to group by: none is held for another's equal by a collation."""
        found = self.selected(source, meaning)
        found = found.element if isinstance(found, Label) else found
        if self.dialect == "sqlite":
            return collate(found, "BINARY")
        if self.columns[meaning].kind != "text":
            return found
        written = self.written(source, meaning)
        return collate(written, "C") if self.dialect == "postgresql" else cast(written, LargeBinary)

    def written(self, source: FromClause, meaning: str) -> ColumnElement[Any]:
        """A column of texts as text of the database's own (PostgreSQL, MySQL)."""
        found = self.column(source, meaning)
        if self.dialect == "postgresql":
            return cast(found, Text)
        return func.convert(found.op("USING")(literal_column("utf8mb4")))

    def timely(
        self, source: FromClause, bounds: dict[str, object] | None = None
    ) -> list[ColumnElement[bool]]:
        """Keeps times out that no event can have, before 1970 and ahead of the clock, by `bounds`, which
        `time_bounds` made; None: they are parameters.

        It takes all that a row's judge would take, so that a LIMIT after it loses nothing.
        """

        def bound(name: str) -> ColumnElement[Any]:
            return bindparam(name) if bounds is None else self.literal("timestamp", bounds[name])

        moment: Any = self.column(source, "timestamp")
        if self.columns["timestamp"].kind == "text":
            return [moment.is_not(None), moment <= bound("latest")]
        inside = and_(moment >= bound("earliest"), moment <= bound("latest"))
        if self.dialect == "sqlite":  # a column of numbers may hold numbers written as text
            inside = or_(inside, func.typeof(moment) == literal_column("'text'"))
        return [inside]

    def time_bounds(self, latest_us: int) -> dict[str, object]:
        """The bounds of `timely`. A local time may be ahead of UTC by as much as a day."""
        if self.columns["timestamp"].kind == "text":
            return {"latest": str(self.time.at(latest_us + DAY_US))[:10] + "~"}
        slack = DAY_US if self.columns["timestamp"].kind == "date" else SLACK_US
        return {"earliest": self.time.at(-DAY_US), "latest": self.time.at(latest_us + slack)}

    def typed(
        self, source: FromClause, event_types: Collection[str] | None
    ) -> list[ColumnElement[bool]]:
        """Keeps types other than these out (None: no type); as `timely` it takes rather too many."""
        if event_types is None or (
            "event_type" not in self.columns and self.default_type in event_types
        ):
            return []
        if "event_type" not in self.columns:
            return [false()]
        written = cast(self.column(source, "event_type"), Text)
        # However it is padded, and whatever case its collation tells apart.
        known = [written.contains(name, autoescape=True) for name in sorted(event_types)]
        if self.default_type in event_types:
            known += [written.is_(None), func.trim(written).in_(self.no_values())]
        return [or_(*known) if known else false()]

    def literal(self, meaning: str, value: object) -> ColumnElement[Any]:
        """A value of the column as SQL that needs no parameter."""
        kind = self.columns[meaning].kind
        if kind == "integer":
            return literal_column(str(int(str(value))))
        if kind == "decimal":
            return literal_column(str(Decimal(str(value))))
        if kind == "float":
            return literal_column(repr(float(str(value))))
        if kind == "text":
            return self.literal_text(str(value))
        if kind == "date":
            assert isinstance(value, date)
            return literal_column(f"'{value.isoformat()}'")
        assert isinstance(value, datetime)
        if kind == "aware" and self.dialect == "postgresql":
            return literal_column(f"TIMESTAMPTZ '{value.astimezone(UTC).isoformat(sep=' ')}'")
        naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        word = "TIMESTAMP " if self.dialect == "postgresql" else ""
        return literal_column(f"{word}'{naive.isoformat(sep=' ')}'")

    def key(self, meaning: str, asked: str) -> object | None:
        """The id `asked` for as a value of the column's own type; None where it can be none.

        Only the one text of an id is taken: '007' is no whole number's.
        """
        kind = self.columns[meaning].kind
        if self.dialect == "sqlite":  # where a column holds values of any type
            return asked if 1 <= len(asked) <= MAX_ID_LENGTH else None
        if kind in ("integer", "decimal"):
            if not _INTEGER.fullmatch(asked) or asked == "-0":
                return None
            number = int(asked)
            if kind == "decimal":
                return number
            low, high = integer_bounds(self.columns[meaning].declared)
            return number if low <= number <= high else None
        if kind in ("uuid", "uuid_bytes"):
            try:
                found = uuid.UUID(asked)
            except ValueError:
                return None
            if str(found) != asked:
                return None
            if kind == "uuid_bytes":
                return found.bytes
            return found if self.dialect == "postgresql" else asked
        return asked if 1 <= len(asked) <= MAX_ID_LENGTH else None

    def mark(self, value: object) -> str:
        """A value of the column that is read along, as text that `unmarked` takes back."""
        return value.isoformat() if isinstance(value, date) else str(value)

    def unmarked(self, mark: str) -> object:
        kind = self.columns[self.along].kind
        if kind in ("aware", "naive"):
            return datetime.fromisoformat(mark)
        if kind == "date":
            return date.fromisoformat(mark)
        if kind == "integer":
            return int(mark)
        return Decimal(mark) if kind == "decimal" else float(mark) if kind == "float" else mark
