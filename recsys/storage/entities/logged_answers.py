"""Answers of a scenario with what came of each item, for estimates of what another version would bring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, select

from recsys.events.identity import sequence_key
from recsys.storage.entities.impression_rows import CHUNK
from recsys.storage.schema.tables import attributed_clicks, conversions, impressions

CLICKS, CONVERSIONS, VALUE = range(3)  # places of an item's rewards
REWARDS = ("clicks", "conversions", "value")
OTHERWISE = ("experiment", "control")  # arms whose answers are not the scenario's own
Rewards = Mapping[tuple[str, str], Sequence[float]]  # answer and item -> REWARDS


class LoggedItem(NamedTuple):
    """An item as an answer showed it, first to last."""

    item_id: str
    source: str
    propensity: float  # the chance that it stood there, above 0


class LoggedAnswer(NamedTuple):
    """An answer to somebody, and its first page alone."""

    recommendation_id: str
    created_at_us: int
    user_id: str | None
    session_id: str | None
    items: tuple[LoggedItem, ...]

    @property
    def unit(self) -> str:
        """Whose it is: the user, or else the session."""
        return sequence_key(self.user_id, self.session_id)


def logged_answers(
    connection: Connection, scenario: str, version: int, since_us: int, limit: int
) -> list[LoggedAnswer]:
    """The newest `limit` answers that a version of a scenario gave to somebody since, newest first.

    Of an answer whose caller said what was really shown, that alone. Answers that an experiment or the
    control arm made otherwise are left out: who gets them is drawn, so the rest is like all of them.
    """
    columns = impressions.c
    named = (columns.recommendation_id, columns.created_at_us, columns.user_id, columns.session_id)
    rows = connection.execute(
        select(*named, columns["items"], columns.shown)
        .where(
            columns.created_at_us >= since_us,
            columns.scenario == scenario,
            columns.scenario_version == version,
            columns.page_of.is_(None),
            columns.arm.is_(None) | columns.arm.not_in(OTHERWISE),
            columns.user_id.is_not(None) | columns.session_id.is_not(None),
        )
        .order_by(columns.created_at_us.desc())
        .limit(limit)
    )
    return [
        LoggedAnswer(*row[:4], items=found)
        for row in rows
        if (found := _items(orjson.loads(row.items), row.shown))
    ]


def _items(stored: Sequence[Sequence[Any]], shown: str | None) -> tuple[LoggedItem, ...]:
    items = {
        str(item_id): LoggedItem(str(item_id), str(source), float(chance[0]) if chance else 1.0)
        for item_id, source, _, *chance in stored
    }
    order = list(items) if shown is None else orjson.loads(shown)
    return tuple(items[item_id] for item_id in order if item_id in items)


def rewards_of(connection: Connection, recommendation_ids: Sequence[str]) -> Rewards:
    """REWARDS by answer and item; what is not there had none. Of a conversion it is the answer's share."""
    found: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * len(REWARDS))
    clicks, bought = attributed_clicks.c, conversions.c
    for at in range(0, len(recommendation_ids), CHUNK):
        chunk = recommendation_ids[at : at + CHUNK]
        clicked = select(clicks.recommendation_id, clicks.item_id)
        for answer, item_id in connection.execute(
            clicked.where(clicks.recommendation_id.in_(chunk))
        ):
            found[answer, item_id][CLICKS] = 1.0
        sold = select(
            bought.recommendation_id, bought.item_id, bought.is_return, bought.share, bought.value
        )
        for answer, item_id, is_return, share, value in connection.execute(
            sold.where(bought.recommendation_id.in_(chunk), bought.answered_at_us.is_not(None))
        ):
            found[answer, item_id][CONVERSIONS] += 0.0 if is_return else share
            found[answer, item_id][VALUE] += value
    return dict(found)
