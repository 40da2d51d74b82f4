"""What units did in experiments, kept as it happens, so that reports are sums over one index's rows.

Answers are counted as they are stored and clicks as they are attributed; conversions and returns by
`count_outcomes`. Counted is by intention to treat: every conversion of a unit since its first answer of the
experiment, until its end. Whatever deletes events calls `take_back` before, or `forget_units`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)

from recsys.events.times import DAY_US
from recsys.steering.event_value import ConversionRules
from recsys.steering.experiment_report import UnitSums
from recsys.storage.engine.database import upsert
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.schema.tables import (
    events,
    experiment_looks,
    experiment_outcomes,
    experiment_testers,
    experiment_units,
    experiments,
)

CHUNK = 500  # keys a statement
LATE_US = 30 * DAY_US  # after an experiment's end, for which late events are still counted

UnitKey = tuple[str, str]  # experiment and unit, 'u:<user_id>' or 's:<session_id>'

_units = experiment_units.c
_of_key = and_(_units.experiment == bindparam("of"), _units.unit == bindparam("who"))
_ADD_CLICKS = update(experiment_units).where(_of_key).values(clicks=_units.clicks + bindparam("n"))
_ADD_OUTCOMES = (
    update(experiment_units)
    .where(_of_key)
    .values(
        conversions=_units.conversions + bindparam("n"), value=_units.value + bindparam("worth")
    )
)


class Exposure(NamedTuple):
    """An answer that counts in an experiment."""

    experiment: str
    unit: str
    arm: str
    at_us: int


class CountedBatch(NamedTuple):
    """How many events were looked at, and the row behind which the next batch starts (None: no more)."""

    number: int
    last: int | None


def add_exposures(connection: Connection, given: Iterable[Exposure]) -> None:
    """Count answers; a unit's first one puts it into its arm."""
    firsts: dict[UnitKey, Exposure] = {}
    numbers: Counter[UnitKey] = Counter()
    for one in given:
        key = (one.experiment, one.unit)
        numbers[key] += 1
        if key not in firsts or one.at_us < firsts[key].at_us:
            firsts[key] = one
    if not firsts:
        return
    statement = upsert(connection, experiment_units)
    fresh = statement.excluded
    earlier = fresh.first_at_us < _units.first_at_us
    statement = statement.on_conflict_do_update(
        index_elements=["experiment", "unit"],
        set_={
            "answers": _units.answers + fresh.answers,
            "first_at_us": case((earlier, fresh.first_at_us), else_=_units.first_at_us),
        },
    )
    rows = [
        {
            "experiment": key[0],
            "unit": key[1],
            "arm": one.arm,
            "first_at_us": one.at_us,
            "answers": numbers[key],
        }
        for key, one in sorted(firsts.items())  # so that two writers cannot lock each other
    ]
    connection.execute(statement, rows)


def add_clicks(connection: Connection, more: Counter[UnitKey]) -> None:
    """Add answers with a click to units; less than none takes them away."""
    rows = [
        {"of": key[0], "who": key[1], "n": number} for key, number in sorted(more.items()) if number
    ]
    if rows:
        connection.execute(_ADD_CLICKS, rows)


def count_outcomes(
    connection: Connection,
    rules: ConversionRules,
    now_us: int,
    overlap_us: int,
    limit: int,
    last: int | None = None,
) -> CountedBatch:
    """Count the conversions and returns among at most `limit` events behind row `last`.

    Without `last` it goes on where an earlier run ended, and reads again what has come within
    `overlap_us`: an answer may be stored after what followed it, and rows may become visible out of
    order. An event is counted once all the same.
    """
    ends = _counted_until(connection, now_us)
    if not ends:
        _settle(connection, now_us, overlap_us)
        return CountedBatch(0, None)
    if last is None:
        last, _, _ = _state(connection)
    rows = events.c
    found = connection.execute(
        select(
            *(rows.id, rows.user_id, rows.session_id, rows.event_type),
            *(rows.timestamp_us, rows.value, rows.properties),
        )
        .where(rows.id > last, rows.event_type.in_(rules.all_types))
        .order_by(rows.id)
        .limit(limit)
    ).all()
    owners = {key for row in found for key in _owners(row)}
    units = _units_of(connection, owners, ends)
    outcomes: dict[tuple[int, str], dict[str, Any]] = {}
    for row in found:
        worth = rules.event_value(row.event_type, row.value, row.properties)
        if worth is None:
            continue
        for name, until_us in ends.items():
            for unit in _owners(row):
                since_us = units.get((name, unit))
                if since_us is None or not since_us <= row.timestamp_us <= until_us:
                    continue
                outcomes[row.id, name] = {
                    "event_row_id": row.id,
                    "experiment": name,
                    "unit": unit,
                    "conversions": 0 if worth.is_return else 1,
                    "value": worth.amount,
                }
                break  # a user's event counts for the user, or else for the session
    _store(connection, outcomes)
    if len(found) == limit:
        return CountedBatch(limit, found[-1].id)
    _settle(connection, now_us, overlap_us)
    return CountedBatch(len(found), None)


def take_back(connection: Connection, chosen: ColumnElement[bool]) -> None:
    """Undo the counting of the events that are `chosen`, which are about to be deleted."""
    counted = experiment_outcomes.c.event_row_id.in_(select(events.c.id).where(chosen))
    gone = connection.execute(select(experiment_outcomes).where(counted)).all()
    connection.execute(delete(experiment_outcomes).where(counted))
    _add_outcomes(
        connection,
        [{**row._mapping, "conversions": -row.conversions, "value": -row.value} for row in gone],
    )


def read_again_from(connection: Connection) -> None:
    """After events were deleted: numbers of the newest rows may be given away again, and are not counted yet."""
    state = _state(connection)
    top = int(connection.execute(select(func.max(events.c.id))).scalar() or 0)
    if max(state) > top:
        _put_state(connection, min(state[0], top), min(state[1], top), state[2])


def forget_units(connection: Connection, units: Sequence[str]) -> int:
    """Delete what is kept of units ('u:<user_id>', 's:<session_id>'); of how many experiments' units."""
    gone = 0
    for at in range(0, len(units), CHUNK):
        some = units[at : at + CHUNK]
        for table in (experiment_outcomes, experiment_testers):
            connection.execute(delete(table).where(table.c.unit.in_(some)))
        gone += connection.execute(
            delete(experiment_units).where(experiment_units.c.unit.in_(some))
        ).rowcount
    return gone


def forget_experiment(connection: Connection, name: str, limit: int) -> int:
    """Delete at most `limit` of the units of an experiment that is over, and what is kept of them; how many
    units. Its looks stay.
    """
    some = select(_units.unit).where(_units.experiment == name).order_by(_units.unit).limit(limit)
    names = list(connection.execute(some).scalars())
    for at in range(0, len(names), CHUNK):
        chosen = names[at : at + CHUNK]
        for table in (experiment_outcomes, experiment_testers, experiment_units):
            of_these = (table.c.experiment == name) & table.c.unit.in_(chosen)
            connection.execute(delete(table).where(of_these))
    return len(names)


def units_of(connection: Connection, units: Sequence[str]) -> list[dict[str, Any]]:
    """What is kept of units, for a request for access."""
    found = []
    for at in range(0, len(units), CHUNK):
        chosen = _units.unit.in_(units[at : at + CHUNK])
        rows = connection.execute(
            select(experiment_units).where(chosen).order_by(_units.experiment)
        )
        found += [dict(row._mapping) for row in rows]
    return found


def sums(connection: Connection, name: str) -> dict[str, UnitSums]:
    """The sums over an experiment's units, by arm; of its last look where units are kept no more."""
    a, c, v = _units.answers, _units.clicks, _units.value
    statement = (
        select(
            *(_units.arm, func.count(), func.sum(a), func.sum(a * a), func.sum(c), func.sum(c * c)),
            *(func.sum(a * c), func.sum(case((_units.conversions > 0, 1), else_=0))),
            *(func.sum(_units.conversions), func.sum(v), func.sum(v * v)),
        )
        .where(_units.experiment == name)
        .group_by(_units.arm)
    )
    found = {row[0]: _sums(row[1:]) for row in connection.execute(statement)}
    if found:
        return found
    newest = looks(connection, name, 1)
    return newest[0][1] if newest else {}


def put_look(connection: Connection, name: str, hour_us: int) -> None:
    """Write down an experiment's sums as they stand in an hour."""
    for arm, found in sums(connection, name).items():
        statement = upsert(connection, experiment_looks).values(
            experiment=name, hour_us=hour_us, arm=arm, **vars(found)
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["experiment", "hour_us", "arm"], set_=vars(found)
            )
        )


def looks(connection: Connection, name: str, limit: int) -> list[tuple[int, dict[str, UnitSums]]]:
    """The sums by arm at the newest `limit` hours, the oldest first: (hour in µs, sums)."""
    rows = experiment_looks.c
    hours = select(rows.hour_us).where(rows.experiment == name).distinct()
    hours = hours.order_by(rows.hour_us.desc()).limit(limit)
    statement = select(experiment_looks).where(rows.experiment == name, rows.hour_us.in_(hours))
    found: defaultdict[int, dict[str, UnitSums]] = defaultdict(dict)
    for row in connection.execute(statement.order_by(rows.hour_us)):
        values = dict(row._mapping)
        named = {key: values[key] for key in UnitSums.__dataclass_fields__}
        found[row.hour_us][row.arm] = UnitSums(**named)
    return list(found.items())


def _counted_until(connection: Connection, now_us: int) -> dict[str, int]:
    """Experiment -> until when its units' events count, of those that events may still be counted in."""
    rows = experiments.c
    statement = select(rows.name, rows.stopped_at_us).where(
        or_(
            rows.state == "running",
            and_(rows.state == "stopped", rows.stopped_at_us > now_us - LATE_US),
        )
    )
    return {name: stopped or now_us for name, stopped in connection.execute(statement)}


def _settle(connection: Connection, now_us: int, overlap_us: int) -> None:
    """After all events there are were looked at: those that were there `overlap_us` ago need no other look."""
    _, newest, at_us = _state(connection)
    if not now_us - overlap_us < at_us <= now_us:
        top = int(connection.execute(select(func.max(events.c.id))).scalar() or 0)
        _put_state(connection, newest, top, now_us)


def _state(connection: Connection) -> tuple[int, int, int]:
    """Rows up to the first number have settled; those up to the second were there at the third, in µs."""
    text = key_values.get_text(connection, InstallationKey.OUTCOMES_COUNTED)
    settled, newest, at_us = orjson.loads(text) if text else (0, 0, 0)
    return settled, newest, at_us


def _put_state(connection: Connection, settled: int, newest: int, at_us: int) -> None:
    text = orjson.dumps([settled, newest, at_us]).decode()
    key_values.put(connection, InstallationKey.OUTCOMES_COUNTED, text)


def _owners(row: Any) -> list[str]:
    named = (("u:", row.user_id), ("s:", row.session_id))
    return [kind + name for kind, name in named if name is not None]


def _units_of(
    connection: Connection, owners: Iterable[str], names: Collection[str]
) -> dict[UnitKey, int]:
    """(experiment, unit) -> when it was first answered, of those among `owners`."""
    wanted, found = sorted(owners), {}
    for at in range(0, len(wanted), CHUNK):
        statement = select(_units.experiment, _units.unit, _units.first_at_us).where(
            _units.unit.in_(wanted[at : at + CHUNK]), _units.experiment.in_(names)
        )
        for name, unit, first_at_us in connection.execute(statement):
            found[name, unit] = first_at_us
    return found


def _store(connection: Connection, outcomes: dict[tuple[int, str], dict[str, Any]]) -> None:
    if not outcomes:
        return
    statement = (
        upsert(connection, experiment_outcomes)
        .on_conflict_do_nothing(index_elements=["event_row_id", "experiment"])
        .returning(experiment_outcomes.c.event_row_id, experiment_outcomes.c.experiment)
    )
    stored = connection.execute(statement, list(outcomes.values())).all()
    _add_outcomes(connection, [outcomes[row.event_row_id, row.experiment] for row in stored])


def _add_outcomes(connection: Connection, outcomes: Sequence[dict[str, Any]]) -> None:
    numbers: Counter[UnitKey] = Counter()
    worth: defaultdict[UnitKey, float] = defaultdict(float)
    for one in outcomes:
        key = (one["experiment"], one["unit"])
        numbers[key] += one["conversions"]
        worth[key] += one["value"]
    rows = [
        {"of": key[0], "who": key[1], "n": numbers[key], "worth": worth[key]}
        for key in sorted(worth)
    ]
    if rows:
        connection.execute(_ADD_OUTCOMES, rows)


def _sums(row: Sequence[Any]) -> UnitSums:
    units, answers, answers2, clicks, clicks2, both, converted, conversions, value, value2 = row
    return UnitSums(
        units=int(units),
        answers=float(answers),
        answers2=float(answers2),
        clicks=float(clicks),
        clicks2=float(clicks2),
        answers_clicks=float(both),
        converted=int(converted),
        conversions=float(conversions),
        value=float(value),
        value2=float(value2),
    )
