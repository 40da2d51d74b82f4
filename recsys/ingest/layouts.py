"""Column maps: which column of a file holds which field, given by hand or by a public log's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from recsys.config import TrackedEvent
from recsys.errors import InputError
from recsys.events.fields import DEFAULT_EVENT_TYPE, EVENT_COLUMNS, EVENT_FIELDS
from recsys.ingest.cells import CellRules
from recsys.ingest.dialects import TextOptions


@dataclass(frozen=True)
class ColumnMap:
    """Source column names by what they hold; None where the file has no such column.

    >>> ColumnMap.parse("user=visitor,item=sku,timestamp=time").item
    'sku'
    """

    user: str | None = None
    session: str | None = None
    item: str | None = None
    timestamp: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    value: str | None = None
    recommendation_id: str | None = None
    properties: str | None = None  # a JSON object, or its text

    @classmethod
    def parse(cls, text: str) -> ColumnMap:
        """The map written as `user=a,item=b,…`. Raises InputError naming what is wrong with it."""
        return cls(**parse_map(text, MEANINGS))

    def mapped(self) -> dict[str, str]:
        """Meaning -> source column, of those that are mapped."""
        values = {meaning: getattr(self, meaning) for meaning in MEANINGS}
        return {meaning: column for meaning, column in values.items() if column is not None}

    def over(self, other: ColumnMap) -> ColumnMap:
        """`other` with its columns replaced by those that this map names."""
        return replace(other, **self.mapped())


# In the order in which columns are asked for and messages list them.
MEANINGS = tuple(entry.name for entry in fields(ColumnMap))
TABLE_MEANINGS = tuple(one.mapped_as for one in EVENT_FIELDS if one.in_table)  # of [events]


def parse_map(text: str, meanings: Sequence[str]) -> dict[str, str]:
    """`a=x,b=y` as a dict whose keys are all among `meanings`; raises InputError."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        meaning, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise InputError("--map", part, "expected MEANING=COLUMN pairs, separated by commas")
        if meaning not in meanings:
            raise InputError("--map", meaning, f"expected one of: {', '.join(meanings)}")
        if meaning in found:
            raise InputError("--map", part, f"{meaning} is mapped twice")
        found[meaning] = column
    return found


@dataclass(frozen=True)
class Layout:
    """One file layout of a public log."""

    file: str  # the name the file is published under
    columns: ColumnMap
    unit: str | None = None  # of the timestamps; None for ISO text
    header: tuple[str, ...] | None = None  # the columns, where the file has no header line
    delimiter: str | None = None  # only asked for where there is no header line
    default_type: str | None = None  # in place of 'view'
    milliseconds: str | None = None  # a column of milliseconds to be added to the timestamp
    missing: tuple[str, ...] = ()  # further words that stand for no value


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a file of events.

    Without `columns` and `format`, columns that bear this project's own names are taken.
    """

    columns: ColumnMap = field(default_factory=ColumnMap)  # wins over those of `format`
    unit: str | None = None  # of numeric timestamps: s, ms, us, ns; None for ISO text
    default_type: str = DEFAULT_EVENT_TYPE  # of events that name none
    where: tuple[str, ...] = ()  # 'column OP value', all of which a row must meet
    format: str | None = None  # a public layout (LAYOUTS), or another system's (TRANSLATED)
    timezone: str | None = None  # of times without a UTC offset
    text: TextOptions = field(default_factory=TextOptions)  # how a delimited file is written
    time_format: str | None = None  # of the timestamps, as strptime has it
    order: str = "auto"  # oldest-first or newest-first: how rows of one time follow
    cells: CellRules = field(default_factory=CellRules)
    tracked: Mapping[str, TrackedEvent] = field(default_factory=dict)  # segment.events

    def plain(self) -> dict[str, Any]:
        """What was asked for, JSON-ready: the options that differ from the defaults."""
        given = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != getattr(ReadOptions(), one.name)
        }
        if "columns" in given:
            given["columns"] = self.columns.mapped()
        if "tracked" in given:
            given["tracked"] = {name: one.model_dump() for name, one in self.tracked.items()}
        return given


_YOOCHOOSE = ColumnMap(session="session_id", item="item_id", timestamp="timestamp")
_DIGINETICA_MISSING = ("NA", "NULL")
_MOVIELENS = ColumnMap(user="userId", item="movieId", timestamp="timestamp", value="rating")
_MOVIELENS_HEADER = ("userId", "movieId", "rating", "timestamp")

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "retailrocket": (
        Layout(
            file="events.csv",
            columns=ColumnMap(
                user="visitorid", item="itemid", timestamp="timestamp", event_type="event"
            ),
            unit="ms",
        ),
    ),
    "yoochoose": (
        Layout(
            file="yoochoose-clicks.dat",
            columns=_YOOCHOOSE,
            header=("session_id", "timestamp", "item_id", "category"),
            delimiter=",",
        ),
        Layout(
            file="yoochoose-buys.dat",
            columns=replace(_YOOCHOOSE, value="price"),
            header=("session_id", "timestamp", "item_id", "price", "quantity"),
            delimiter=",",
            default_type="purchase",
        ),
    ),
    # The day in one column, the milliseconds since the session's first query in another; the
    # copies in circulation spell the header in two ways.
    "diginetica": (
        Layout(
            file="train-item-views.csv",
            columns=ColumnMap(
                user="userId", session="sessionId", item="itemId", timestamp="eventdate"
            ),
            milliseconds="timeframe",
            missing=_DIGINETICA_MISSING,
        ),
        Layout(
            file="train-item-views.csv",
            columns=ColumnMap(
                user="user_id", session="session_id", item="item_id", timestamp="eventdate"
            ),
            milliseconds="timeframe",
            missing=_DIGINETICA_MISSING,
        ),
    ),
    "movielens": (
        Layout(file="ratings.csv", columns=_MOVIELENS, unit="s", default_type="rating"),
        Layout(
            file="ratings.dat",
            columns=_MOVIELENS,
            unit="s",
            header=_MOVIELENS_HEADER,
            delimiter="::",
            default_type="rating",
        ),
        Layout(
            file="u.data",
            columns=_MOVIELENS,
            unit="s",
            header=_MOVIELENS_HEADER,
            delimiter="\t",
            default_type="rating",
        ),
    ),
    "rees46": (
        Layout(
            file="2019-Oct.csv",
            columns=ColumnMap(
                user="user_id",
                session="user_session",
                item="product_id",
                timestamp="event_time",
                event_type="event_type",
                value="price",
            ),
        ),
    ),
}

# What this project exports, and what is taken where neither a map nor a format is given.
OWN_COLUMNS = ColumnMap(**{one.mapped_as: one.rest_name for one in EVENT_FIELDS if one.mapped_as})


def choose_layout(name: str, columns: Sequence[str], delimiter: str | None) -> Layout:
    """The layout of public log `name` that a file with these `columns` has.

    `columns` are the fields of the first line of a delimited file (which may turn out to be data)
    or the column names of any other; `delimiter` is None for those. Raises InputError.
    """
    layouts = LAYOUTS.get(name)
    if layouts is None:
        raise InputError("--format", name, f"expected one of: {', '.join(LAYOUTS)}")
    present = set(columns)
    for layout in layouts:
        needed = {*layout.columns.mapped().values(), layout.milliseconds or layout.columns.item}
        if needed <= present:
            return layout
    for layout in layouts:
        if layout.header and layout.delimiter == delimiter and len(layout.header) == len(columns):
            return layout
    expected = " or ".join(
        dict.fromkeys(
            f"{layout.file} with {len(layout.header)} columns and no header line"
            if layout.header
            else f"{layout.file} with the columns {', '.join(layout.columns.mapped().values())}"
            for layout in layouts
        )
    )
    raise InputError("--format", name, f"expected {expected}; the file starts {listed(columns)}")


def is_export_header(names: Sequence[str]) -> bool:
    """Whether a file with columns `names` is one that this project exported."""
    return {"timestamp_us", "event_id"} <= set(names) <= set(EVENT_COLUMNS)


def is_own_export(names: Sequence[str], options: ReadOptions) -> bool:
    """Whether a file with columns `names` is one that this project exported, to be read as it is."""
    plain = options.format is None and not options.columns.mapped()
    return plain and is_export_header(names)


def own_map(columns: Sequence[str]) -> ColumnMap:
    """The map of `columns` that have the names of this project's own exports."""
    present = set(columns)
    own = {meaning: name for meaning, name in OWN_COLUMNS.mapped().items() if name in present}
    if "timestamp" not in own and "timestamp_us" in present:
        own["timestamp"] = "timestamp_us"
    return ColumnMap(**own)


def require_columns(option: str, wanted: Sequence[str], columns: Sequence[str]) -> None:
    """Raise InputError where one of `wanted` is not, or not only once, among `columns`."""
    for name in wanted:
        count = columns.count(name)
        if count == 0:
            raise InputError(option, name, f"no such column; the file has {listed(columns)}")
        if count > 1:
            raise InputError(option, name, "the file has more than one column of that name")


def listed(columns: Sequence[str], limit: int = 30) -> str:
    """Format `columns` for a message of one line."""
    more = f", … ({len(columns)} in all)" if len(columns) > limit else ""
    return ", ".join(repr(column)[1:-1][:80] for column in columns[:limit]) + more
