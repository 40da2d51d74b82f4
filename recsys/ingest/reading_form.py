"""How a file is read, as plain texts by field: what a form holds and a run is asked for.

`suggested` proposes them from a file's column names and first values. It only proposes: what is read is
what the form says in the end, by the code of `events import`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from recsys.errors import InputError, unknown
from recsys.events.fields import DEFAULT_EVENT_TYPE
from recsys.events.times import MICROSECONDS
from recsys.ingest.dialects import TextOptions
from recsys.ingest.layouts import (
    LAYOUTS,
    MEANINGS,
    ColumnMap,
    ReadOptions,
    is_export_header,
    own_map,
)
from recsys.ingest.numeric_times import plausible

# Beside the meanings of columns; each is the option of `events import` of that name.
OPTIONS = (
    "format", "unit", "time_format", "timezone", "default_type", "columns", "delimiter", "encoding",
)  # fmt: skip
FIELDS = (*MEANINGS, *OPTIONS)
UNITS = tuple(MICROSECONDS)
MAX_TEXT = 1_000
_TAB = ("tab", r"\t")
# Names by which columns go elsewhere, without marks and case; the likelier ones first.
_NAMES = {
    "user": ("userid", "user", "visitorid", "visitor", "customerid", "customer", "clientid", "uid",
             "memberid", "accountid", "buyerid", "anonymousid", "distinctid"),
    "session": ("sessionid", "session", "usersession", "visitid", "sid", "gasessionid"),
    "item": ("itemid", "item", "productid", "product", "sku", "articleid", "movieid", "contentid",
             "asin", "isbn", "trackid", "songid", "offerid", "goodsid", "stockcode", "variantid"),
    "timestamp": ("timestamp", "eventtime", "time", "ts", "datetime", "createdat", "occurredat",
                  "eventtimestamp", "eventdate", "date", "receivedat", "invoicedate"),
    "event_type": ("eventtype", "event", "eventname", "type", "action", "behavior", "behaviortype"),
    "event_id": ("eventid", "messageid", "uuid", "insertid"),
    "value": ("value", "rating", "price", "amount", "revenue"),
    "recommendation_id": ("recommendationid",),
    "properties": ("properties",),
}  # fmt: skip


def read_options(reading: Mapping[str, str]) -> ReadOptions:
    """The options that a form's texts mean; an empty text is none. Raises InputError naming the field."""
    given = {name: text for name, text in reading.items() if text}
    for name, text in given.items():
        if name not in FIELDS:
            raise unknown("field", name, "a column's meaning or an option", FIELDS)
        if len(text) > MAX_TEXT:
            raise InputError(name, text, f"expected at most {MAX_TEXT} characters")
    delimiter = given.get("delimiter")
    columns = tuple(name.strip() for name in given.get("columns", "").split(",") if name.strip())
    return ReadOptions(
        columns=ColumnMap(**{name: given[name] for name in MEANINGS if name in given}),
        unit=given.get("unit"),
        default_type=given.get("default_type", DEFAULT_EVENT_TYPE),
        format=given.get("format"),
        timezone=given.get("timezone"),
        time_format=given.get("time_format"),
        text=TextOptions(
            delimiter="\t" if delimiter in _TAB else delimiter,
            columns=columns,
            encoding=given.get("encoding"),
        ),
    )


def command_line(name: str, reading: Mapping[str, str]) -> str:
    """What imports the file `name` the same way in a terminal.

    >>> command_line("clicks.csv", {"user": "uid", "item": "sku", "unit": "ms", "session": ""})
    'recsys events import clicks.csv --map user=uid,item=sku --unit ms'
    """
    parts = ["recsys events import", shlex.quote(name)]
    columns = [f"{meaning}={reading[meaning]}" for meaning in MEANINGS if reading.get(meaning)]
    if columns:
        parts.append(f"--map {shlex.quote(','.join(columns))}")
    given = {option: reading[option] for option in OPTIONS if reading.get(option)}
    parts += [f"--{name.replace('_', '-')} {shlex.quote(text)}" for name, text in given.items()]
    return " ".join(parts)


def suggested(
    names: Sequence[str], values: Mapping[str, Sequence[str]], now_us: int
) -> dict[str, str]:
    """A reading for a file with columns `names`, of each of which `values` has the first.

    A file of this project's own is read as it is; one with the columns of a public layout by that; else
    columns are told by name, and the unit of a time in numbers by the only one that makes it recent.

    >>> suggested(["uid", "sku", "ts"], {"ts": ["1714564800000"]}, 1_800_000_000_000_000)
    {'user': 'uid', 'item': 'sku', 'timestamp': 'ts', 'unit': 'ms'}
    """
    if is_export_header(names):
        return {}
    own = own_map(names)
    if own.item and own.timestamp and (own.user or own.session):
        return _with_unit(own.mapped(), values, now_us)
    for format_, layouts in LAYOUTS.items():
        if any(_has(names, layout.columns) for layout in layouts):
            return {"format": format_}
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(re.sub(r"[^a-z0-9]", "", name.lower()), name)
    found = own.mapped()
    for meaning, known in _NAMES.items():
        taken = set(found.values())
        near = (plain[one] for one in known if one in plain and plain[one] not in taken)
        if meaning not in found and (column := next(near, None)) is not None:
            found[meaning] = column
    return _with_unit({name: found[name] for name in MEANINGS if name in found}, values, now_us)


def _has(names: Sequence[str], columns: ColumnMap) -> bool:
    return set(columns.mapped().values()) <= set(names)


def _with_unit(
    found: dict[str, str], values: Mapping[str, Sequence[str]], now_us: int
) -> dict[str, str]:
    first = next((text for text in values.get(found.get("timestamp", ""), ()) if text), "")
    if re.fullmatch(r"[0-9]{9,19}(\.[0-9]+)?", first):
        fitting = [unit for unit in UNITS if plausible(float(first) * MICROSECONDS[unit], now_us)]
        if len(fitting) == 1:
            return {**found, "unit": fitting[0]}
    return found
