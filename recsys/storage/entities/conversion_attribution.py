"""Attribution: conversions and returns to rows of `conversions`, by the answers that they count for.

Every event of a type that `[attribution]` names has a row, also where it counts for no answer. An event
that is attributed again has its rows replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, delete, func, select

from recsys.events.identity import PAGE_ID_PREFIX
from recsys.steering.event_value import ConversionRules, EventValue
from recsys.storage.engine import advisory_lock
from recsys.storage.entities import event_rows, key_values
from recsys.storage.entities.conversion_touches import (
    MAX_TOUCHES,
    ConversionEvent,
    Person,
    Touch,
    chunks,
    named_touches,
    people_of,
    shown_touches,
    stored_answers,
)
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import conversions, conversions_due, events, impressions

BY_ID, SHOWN, RETURNED, NONE = "recommendation_id", "shown", "return", "none"
DUE_OWNERS = 200  # users and sessions a batch that are attributed again
MAX_AGAIN = 10_000  # their newest conversions that are
_COLUMNS = ("id", "user_id", "session_id", "item_id", "event_type", "timestamp_us")
_READ = (
    *(events.c[name] for name in _COLUMNS),
    *(events.c[name] for name in ("event_id", "recommendation_id", "value", "properties")),
)


class ConversionBatch(NamedTuple):
    """How many conversions and returns were looked at, and where the next batch starts."""

    number: int
    last_row: int | None  # None where no event is left


def attribute_batch(
    connection: Connection,
    rules: ConversionRules,
    now_us: int,
    overlap_us: int,
    rows: int,
    last_row: int | None = None,
) -> ConversionBatch:
    """Attribute the conversions and returns among `rows` row numbers behind `last_row`.

    Without `last_row` it goes on where an earlier run ended, less what came in the last `overlap_us`:
    an answer may be stored after its conversion, and rows may become visible out of order. Attributed
    twice, an event counts once. Events from before the first answer are left out. Raises
    StorageUnavailableError.
    """
    advisory_lock.lock_shared(connection)  # an erasure sees these rows, or this its tombstone
    advisory_lock.take_turns(connection, "conversions")
    since_us = _since(connection)
    if since_us is None:
        return ConversionBatch(0, None)
    settled = key_values.get_number(connection, InstallationKey.CONVERSIONS_SETTLED)
    first = settled if last_row is None else last_row
    newest = connection.execute(select(func.max(events.c.id))).scalar() or 0
    span = events.c.id.between(first + 1, first + rows)
    wanted = (events.c.event_type.in_(rules.all_types), events.c.timestamp_us >= since_us)
    found = list(connection.execute(select(*_READ).where(span, *wanted)))
    _attribute(connection, rules, found)
    if (old := _newest_before(connection, span, now_us - overlap_us)) is not None:
        key_values.put(connection, InstallationKey.CONVERSIONS_SETTLED, max(settled, old))
    reached = first + rows
    return ConversionBatch(len(found), reached if reached < newest else None)


def attribute_due(connection: Connection, rules: ConversionRules) -> int:
    """Attribute the conversions of DUE_OWNERS of those that are due again; how many owners it were.

    Of each the newest MAX_AGAIN. Raises StorageUnavailableError.
    """
    advisory_lock.lock_shared(connection)
    advisory_lock.take_turns(connection, "conversions")
    due = conversions_due.c.owner_key
    keys = list(connection.execute(select(due).order_by(due).limit(DUE_OWNERS)).scalars())
    # First, so that whoever notes one of them again meanwhile waits, and then notes it anew.
    connection.execute(delete(conversions_due).where(due.in_(keys)))
    since_us = _since(connection)
    if keys and since_us is not None:
        found: dict[int, Row[Any]] = {}
        for person in dict.fromkeys(people_of(connection, keys).values()):
            statement = (
                select(*_READ)
                .where(
                    event_rows.owned_by(person.owner_keys),
                    events.c.event_type.in_(rules.all_types),
                    events.c.timestamp_us >= since_us,
                )
                .order_by(events.c.timestamp_us.desc(), events.c.id.desc())
                .limit(MAX_AGAIN)
            )
            found |= {row.id: row for row in connection.execute(statement)}
        _attribute(connection, rules, found.values())
    return len(keys)


def _since(connection: Connection) -> int | None:
    """The time of the first answer there ever was; None where there was none yet."""
    key = InstallationKey.CONVERSIONS_SINCE_US
    known = key_values.get_text(connection, key)
    if known is not None:
        return int(known)
    first: int | None = connection.execute(select(func.min(impressions.c.created_at_us))).scalar()
    return (
        None if first is None else int(key_values.get_or_put(connection, key, lambda: str(first)))
    )


def _newest_before(connection: Connection, span: ColumnElement[bool], before_us: int) -> int | None:
    """The last row of `span` that came before `before_us`."""
    statement = select(func.max(events.c.id)).where(span, events.c.received_at_us < before_us)
    found: int | None = connection.execute(statement).scalar()
    return found


def _attribute(connection: Connection, rules: ConversionRules, found: Iterable[Row[Any]]) -> None:
    """Put the rows of these events in place of those that are there."""
    rows = {row.id: row for row in found}
    worth: dict[int, EventValue] = {}
    for row in rows.values():
        if value := rules.event_value(row.event_type, row.value, row.properties):
            worth[row.id] = value
    given = {row_id: _event(rows[row_id]) for row_id in worth}
    people = people_of(connection, {one.owner_key for one in given.values()})
    bought = [one for one in given.values() if not worth[one.row_id].is_return]
    touches = _touches(connection, rules, bought, people)
    _replace(
        connection,
        [(rows[one.row_id], worth[one.row_id], touches[one.row_id]) for one in bought],
    )
    returned = {one.row_id for one in given.values() if worth[one.row_id].is_return}
    _attribute_returns(connection, rules, rows, returned, bought, people)


class _Counted(NamedTuple):
    """One answer that an event counts for, as it is stored."""

    touch: Touch
    share: float
    via: str


def _touches(
    connection: Connection,
    rules: ConversionRules,
    given: Sequence[ConversionEvent],
    people: Mapping[str, Person],
) -> dict[int, list[_Counted]]:
    """The answers that each event counts for, with their shares; none where there is none."""
    named = named_touches(connection, given)
    others = [one for one in given if one.row_id not in named]
    shown = shown_touches(connection, others, people, rules.window_us)
    kept = _kept(connection, [one.row_id for one in others])
    found: dict[int, list[_Counted]] = {}
    for event in given:
        row_id = event.row_id
        before = kept.get(row_id, [])
        by_id = named.get(row_id) or [one.touch for one in before if one.via == BY_ID]
        if by_id:
            found[row_id] = [_Counted(by_id[0], 1.0, BY_ID)]
            continue
        seen = [*shown.get(row_id, []), *(one.touch for one in before)]
        chosen = seen[: 1 if rules.touch == "last" else MAX_TOUCHES]
        found[row_id] = [_Counted(one, 1 / len(chosen), SHOWN) for one in chosen]
    return found


def _kept(connection: Connection, row_ids: Collection[int]) -> dict[int, list[_Counted]]:
    """What events count for already, of answers that are stored no more, the newest first."""
    found: dict[int, list[_Counted]] = defaultdict(list)
    for row in _rows_of(connection, row_ids):
        if row.recommendation_id:
            found[row.event_row_id].append(_counted(row))
    names = {one.touch.recommendation_id for some in found.values() for one in some}
    stored = stored_answers(connection, names)
    return {
        row_id: sorted(
            (one for one in some if one.touch.recommendation_id not in stored),
            key=lambda one: -one.touch.answered_at_us,
        )
        for row_id, some in found.items()
    }


def _attribute_returns(
    connection: Connection,
    rules: ConversionRules,
    rows: dict[int, Row[Any]],
    returned: set[int],
    bought: Sequence[ConversionEvent],
    people: Mapping[str, Person],
) -> None:
    """Returns count where the newest conversion before them of the same item and user does.

    Those of what was just `bought` come along: a conversion may come in after its return.
    """
    pairs = {(one.owner_key, one.item_id) for one in bought}
    pairs |= {(_event(rows[row_id]).owner_key, rows[row_id].item_id) for row_id in returned}
    persons = dict.fromkeys(people[key] for key, _ in sorted(pairs))
    owners = {key: person for person in persons for key in person.owner_keys}
    items = {item_id for _, item_id in pairs}
    by_pair: dict[tuple[Person, str], list[Row[Any]]] = defaultdict(list)
    for chunk in chunks(owners):
        theirs = select(conversions).where(conversions.c.owner_key.in_(chunk))
        for row in connection.execute(theirs):
            if row.item_id in items:
                by_pair[owners[row.owner_key], row.item_id].append(row)
    again = {
        row.event_row_id for some in by_pair.values() for row in some if row.is_return
    } - returned
    for some_ids in chunks(again):
        statement = select(*_READ).where(events.c.id.in_(some_ids))
        rows.update({row.id: row for row in connection.execute(statement)})
    known = {**people, **owners}
    new: list[tuple[Row[Any], EventValue, list[_Counted]]] = []
    for row_id in sorted(returned | (again & rows.keys())):
        row = rows[row_id]
        value = rules.event_value(row.event_type, row.value, row.properties)
        if value is None or not value.is_return:
            continue
        before = [
            one
            for one in by_pair[known[_event(row).owner_key], row.item_id]
            if not one.is_return and one.event_at_us <= row.timestamp_us
        ]
        last = max(before, key=lambda one: (one.event_at_us, one.event_row_id), default=None)
        counted = [
            _counted(one)._replace(via=RETURNED)
            for one in before
            if last is not None and one.event_row_id == last.event_row_id and one.recommendation_id
        ]
        new.append((row, value, counted))
    _replace(connection, new)


def _replace(
    connection: Connection, given: Sequence[tuple[Row[Any], EventValue, list[_Counted]]]
) -> None:
    """Store what events count for in place of what they counted for."""
    new = [row for event, value, counted in given for row in _values(event, value, counted)]
    for some_ids in chunks({event.id for event, _, _ in given}):
        chosen = conversions.c.event_row_id.in_(some_ids)
        connection.execute(delete(conversions).where(chosen))
    if new:
        connection.execute(conversions.insert(), new)


def _values(
    event: Row[Any], value: EventValue, counted: Sequence[_Counted]
) -> Iterable[dict[str, Any]]:
    common = {
        "event_row_id": event.id,
        "owner_key": _event(event).owner_key,
        "item_id": event.item_id,
        "event_type": event.event_type,
        "event_at_us": event.timestamp_us,
        "is_return": value.is_return,
        "currency": value.currency,
        "from_page": event.event_id.startswith(PAGE_ID_PREFIX),
    }
    for touch, share, via in counted:
        yield (
            common
            | touch._asdict()
            | {
                "share": share,
                "value": share * value.amount,
                "via": via,
            }
        )
    if not counted:
        nothing = {"answered_at_us": None, "rank": None}
        names = ("recommendation_id", "source", "model_version", "arm", "scenario")
        yield (
            common
            | dict.fromkeys(names, "")
            | nothing
            | {
                "share": 1.0,
                "value": value.amount,
                "via": NONE,
            }
        )


def _rows_of(connection: Connection, row_ids: Collection[int]) -> Iterable[Row[Any]]:
    for some_ids in chunks(row_ids):
        chosen = conversions.c.event_row_id.in_(some_ids)
        yield from connection.execute(select(conversions).where(chosen))


def _counted(row: Row[Any]) -> _Counted:
    touch = Touch(*(getattr(row, name) for name in Touch._fields))
    return _Counted(touch, row.share, row.via)


def _event(row: Row[Any]) -> ConversionEvent:
    return ConversionEvent(
        row.id,
        row.user_id,
        row.session_id,
        row.item_id,
        row.timestamp_us,
        row.recommendation_id,
    )
