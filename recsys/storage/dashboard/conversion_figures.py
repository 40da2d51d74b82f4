"""What answers brought: conversions and their value, by what the answers were."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    case,
    cast,
    func,
    select,
    type_coerce,
)

from recsys.errors import InputError
from recsys.events.times import HOUR_US, rfc3339
from recsys.steering.wilson_interval import ShareInterval, Z, share_interval
from recsys.storage.dashboard.revenue import in_currency
from recsys.storage.entities.answer_count_rows import EMPTY, TRUSTED, WHOLE
from recsys.storage.schema.tables import (
    aliases,
    answer_counts,
    attributed_clicks,
    conversions,
    impressions,
    items,
)

By = Literal["scenario", "arm", "version", "source", "category", "hour"]
Key = tuple[Any, ...]  # a value for each of `by`; '' = none, hours in us
OF_ITEMS = frozenset({"source", "category"})  # what items of an answer differ in
MAX_GROUPS = 1_000
RATE = ("conversion_rate", "conversion_rate_low", "conversion_rate_high")


@dataclass(frozen=True, slots=True)
class Conversions:
    """What the answers of one group brought."""

    conversions: float = 0.0  # shares of each event add up to 1
    returns: float = 0.0
    value: float = 0.0  # less what was returned
    left_out: float = 0.0  # conversions and returns in another currency, whose value is left out
    buyers: int = 0  # users and sessions with a conversion or return
    squares: float = 0.0  # sum over them of their value squared


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """One row of the report."""

    key: Key
    shown: int | None  # answers; by source, items; by category, unknown
    clicks: int  # answers with a click; by source or category, clicked items
    found: Conversions
    users: int | None  # users and sessions that got an answer; None where that is not known
    converted: int = 0  # answers with a conversion; by source or category, items

    @property
    def conversion_rate(self) -> ShareInterval | None:
        """Of what was shown, what was converted; None where nothing was shown or that is not known."""
        return share_interval(min(self.converted, self.shown), self.shown) if self.shown else None

    @property
    def value_per_user(self) -> tuple[float, float, float] | None:
        """The mean over users with its 95% interval; None where there is none.

        Users without a conversion count with 0.
        """
        if not self.users:
            return None
        users = max(self.users, self.found.buyers)
        mean = self.found.value / users
        spread = max(0.0, self.found.squares / users - mean**2)
        half = Z * math.sqrt(spread / users)
        return mean, mean - half, mean + half

    def to_json(self, by: Sequence[By]) -> dict[str, Any]:
        """The row of the report that was made `by` these."""
        key = dict(zip(by, self.key, strict=True))
        if "hour" in key:
            key["hour"] = rfc3339(key["hour"])
        mean, low, high = self.value_per_user or (None, None, None)
        rate = self.conversion_rate or (None, None, None)
        return {
            **key,
            "shown": self.shown,
            "clicks": self.clicks,
            "conversions": round(self.found.conversions, 6),
            "returns": round(self.found.returns, 6),
            "converted": self.converted,
            **dict(zip(RATE, rate, strict=True)),
            "value": round(self.found.value, 6),
            "other_currency": round(self.found.left_out, 6),
            "users": self.users,
            "value_per_user": mean,
            "low": low,
            "high": high,
        }


def conversion_report(
    connection: Connection,
    since_us: int,
    until_us: int,
    by: Sequence[By],
    currency: str,
    *,
    pages: bool = True,
) -> list[GroupFigures]:
    """What answers given in [since_us, until_us) brought so far, by group, ordered by key.

    `since_us` is the start of an hour. Without `pages` conversions that a page told of are left out. Raises InputError where there are more than MAX_GROUPS groups.
    """
    shown = _shown(connection, since_us, until_us, by)
    counted = [conversions.c.answered_at_us >= since_us, conversions.c.answered_at_us < until_us]
    if not pages:
        counted.append(conversions.c.from_page.is_(False))
    found = _conversions(connection, counted, by, currency)
    converted = _converted(connection, counted, by)
    users = _users(connection, since_us, until_us, by)
    keys = sorted(shown.keys() | found.keys())
    if len(keys) > MAX_GROUPS:
        expected = f"expected a shorter range or fewer names: there are over {MAX_GROUPS:,} rows"
        raise InputError("by", ",".join(by), expected)
    return [
        GroupFigures(
            key,
            *shown.get(key, (None if "category" in by else 0, 0)),
            found.get(key, Conversions()),
            None if users is None else users.get(key, 0),
            converted.get(key, 0),
        )
        for key in keys
    ]


def _converted(
    connection: Connection, counted: Sequence[ColumnElement[bool]], by: Sequence[By]
) -> dict[Key, int]:
    """How many answers, or items of answers, a conversion counts for, wholly or in part."""
    columns = [_column(connection, name).label(name) for name in by]
    one = [conversions.c.recommendation_id]
    if OF_ITEMS.intersection(by):
        one.append(conversions.c.item_id)
    bought = (
        select(*columns, *(column.label(f"of_{column.name}") for column in one))
        .select_from(_with_items(conversions, by))
        .where(*counted, conversions.c.is_return.is_(False))
        .distinct()
        .subquery()
    )
    names = [bought.c[name] for name in by]
    statement = select(*names, func.count()).group_by(*names)
    return {tuple(row[:-1]): int(row[-1]) for row in connection.execute(_limited(statement))}


def _with_items(rows: FromClause, by: Sequence[By]) -> FromClause:
    """Conversions with what a report by category needs of their items."""
    if "category" not in by:
        return rows
    return rows.outerjoin(items, items.c.item_id == conversions.c.item_id)


def _conversions(
    connection: Connection,
    counted: Sequence[ColumnElement[bool]],
    by: Sequence[By],
    currency: str,
) -> dict[Key, Conversions]:
    columns = [_column(connection, name).label(name) for name in by]
    owned = conversions.outerjoin(aliases, aliases.c.alias_key == conversions.c.owner_key)
    # An event that is nobody's any more stands for a user of its own.
    person = func.coalesce(
        "u:" + aliases.c.user_id,
        conversions.c.owner_key,
        cast(conversions.c.event_row_id, conversions.c.recommendation_id.type),
    )
    known = in_currency(currency)
    share, value = conversions.c.share, conversions.c.value
    is_return = conversions.c.is_return
    of_person = (
        select(
            *columns,
            func.sum(case((is_return, 0.0), else_=share)).label("conversions"),
            func.sum(case((is_return, share), else_=0.0)).label("returns"),
            func.sum(case((known, value), else_=0.0)).label("value"),
            func.sum(case((known, 0.0), else_=share)).label("left_out"),
        )
        .select_from(_with_items(owned, by))
        .where(*counted)
        .group_by(*columns, person)
        .subquery()
    )
    names = [of_person.c[name] for name in by]
    totals = [
        func.sum(of_person.c[name]) for name in ("conversions", "returns", "value", "left_out")
    ]
    statement = select(
        *names, *totals, func.count(), func.sum(of_person.c.value * of_person.c.value)
    )
    found = {}
    for row in connection.execute(_limited(statement.group_by(*names))):
        bought, returned, earned, left_out, buyers, squares = row[len(by) :]
        found[tuple(row[: len(by)])] = Conversions(
            conversions=float(bought),
            returns=float(returned),
            value=float(earned),
            left_out=float(left_out),
            buyers=int(buyers),
            squares=float(squares),
        )
    return found


def _shown(
    connection: Connection, since_us: int, until_us: int, by: Sequence[By]
) -> dict[Key, tuple[int | None, int]]:
    """What was shown of each group, and what was clicked of it."""
    if "category" in by:
        return _clicked_by_category(connection, since_us, until_us, by)
    counts = answer_counts.c
    whole = counts.source == WHOLE
    counted = counts.source.not_in((WHOLE, TRUSTED, EMPTY)) if "source" in by else whole
    of = {"version": "model_version", "hour": "hour_us"}
    columns = [counts[of.get(name, name)] for name in by]
    statement = (
        select(*columns, func.sum(counts.shown), func.sum(counts.clicks))
        .where(counts.hour_us >= since_us, counts.hour_us < until_us, counted)
        .group_by(*columns)
    )
    return {
        tuple(row[:-2]): (int(row[-2]), int(row[-1]))
        for row in connection.execute(_limited(statement))
    }


def _clicked_by_category(
    connection: Connection, since_us: int, until_us: int, by: Sequence[By]
) -> dict[Key, tuple[int | None, int]]:
    """Clicked items by category, of the answers that are still stored."""
    of = {
        "scenario": func.coalesce(impressions.c.scenario, ""),
        "arm": func.coalesce(impressions.c.arm, ""),
        "version": func.coalesce(impressions.c.model_version, ""),
        "source": attributed_clicks.c.source,
        "hour": impressions.c.created_at_us - impressions.c.created_at_us % HOUR_US,
        "category": _category(connection),
    }
    columns = [of[name].label(name) for name in by]
    joined = impressions.join(
        attributed_clicks,
        attributed_clicks.c.recommendation_id == impressions.c.recommendation_id,
    ).outerjoin(items, items.c.item_id == attributed_clicks.c.item_id)
    statement = (
        select(*columns, func.count())
        .select_from(joined)
        .where(impressions.c.created_at_us >= since_us, impressions.c.created_at_us < until_us)
        .group_by(*columns)
    )
    rows = connection.execute(_limited(statement))
    return {tuple(row[:-1]): (None, int(row[-1])) for row in rows}


def _users(
    connection: Connection, since_us: int, until_us: int, by: Sequence[By]
) -> dict[Key, int] | None:
    """How many users and sessions got an answer of each group, a merged one as whom it counts as.

    None where the groups are of items, or where answers of the range are stored no more.
    """
    if OF_ITEMS.intersection(by):
        return None
    oldest = connection.execute(select(func.min(impressions.c.created_at_us))).scalar()
    counts = answer_counts.c.hour_us
    first = connection.execute(
        select(func.min(counts)).where(counts >= since_us, counts < until_us)
    ).scalar()
    if first is not None and (oldest is None or first < oldest - oldest % HOUR_US):
        return None
    given = impressions.c
    of = {
        "scenario": func.coalesce(given.scenario, ""),
        "arm": func.coalesce(given.arm, ""),
        "version": func.coalesce(given.model_version, ""),
        "hour": given.created_at_us - given.created_at_us % HOUR_US,
    }
    columns = [of[name].label(name) for name in by]
    owner = func.coalesce("u:" + given.user_id, "s:" + given.session_id)
    joined = impressions.outerjoin(aliases, aliases.c.alias_key == owner)
    person = func.coalesce("u:" + aliases.c.user_id, owner)
    people = (
        select(*columns, person.label("person"))
        .select_from(joined)
        .where(given.created_at_us >= since_us, given.created_at_us < until_us, owner.is_not(None))
        .distinct()
        .subquery()
    )
    names = [people.c[name] for name in by]
    statement = select(*names, func.count()).group_by(*names)
    return {tuple(row[:-1]): int(row[-1]) for row in connection.execute(_limited(statement))}


def _column(connection: Connection, name: By) -> ColumnElement[Any]:
    answered = conversions.c.answered_at_us
    special: Mapping[str, ColumnElement[Any]] = {
        "version": conversions.c.model_version,
        "hour": answered - answered % HOUR_US,
    }
    if name == "category":
        return _category(connection)
    return special[name] if name in special else conversions.c[name]


def _category(connection: Connection) -> ColumnElement[Any]:
    """An item's first category; '' where it has none."""
    listed = items.c.categories
    parsed = (
        cast(listed, JSON) if connection.dialect.name == "postgresql" else type_coerce(listed, JSON)
    )
    return func.coalesce(parsed[0].as_string(), "")


def _limited(statement: Select[Any]) -> Select[Any]:
    return statement.limit(MAX_GROUPS + 1)
