"""Whether a champion may stay: what people do with its answers, beside the control arm's.

The gate judges by the past; this judges by what happens. It looks every few minutes, so its bound is
stricter than a single look's: Z of 3.29 is one false alarm in a thousand looks that were independent,
and these, which see mostly the same answers again, are not.

What pages tell does not count, neither clicks on answers to them nor on answers that the shop's server asked
for: their key is public, and whoever reads it can click what he likes. Where pages alone tell of clicks, the
guard judges by empty answers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from recsys.commands import deployments
from recsys.config import Settings
from recsys.errors import ConflictError
from recsys.events.times import HOUR_US, to_us
from recsys.serving.uplift import uplift
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import answer_count_rows, version_rows
from recsys.storage.entities.audit_rows import GUARD

STRICT_Z = 3.290527


def guard_champion(
    settings: Settings,
    database: Database,
    now: datetime,
    fence: Callable[[Connection], None] = lambda connection: None,
) -> str | None:
    """Roll back a champion that people click on less than on the control arm's in the same hours,
    or that too often has nothing to show; the reason, or None where it may stay.

    Judged and rolled back in one transaction, so that no other version is hit that was promoted
    meanwhile. `fence` may refuse the roll back by raising.
    """
    if not settings.promotion.auto_rollback:
        return None
    with database.begin() as connection:
        version_rows.lock_champion(connection)
        latest = version_rows.list_deployments(connection, 1)
        if not latest or latest[0]["deployed_by"] == GUARD.name:
            return None
        version = latest[0]["version"]
        since_us = (latest[0]["deployed_at_us"] // HOUR_US + 1) * HOUR_US
        by = ("hour_us", "arm", "model_version")
        whole = answer_count_rows.counts(connection, since_us, to_us(now), by, pages_clicks=False)
        empty = answer_count_rows.empty_answers(connection, since_us, to_us(now), version)
        found = verdict_in_service(
            [
                row
                for row in whole
                if (row["arm"] == "champion") == (row["model_version"] == version)
            ],
            empty,
            settings.promotion.guard_min_answers,
            settings.promotion.guard_max_empty,
        )
        if found is None:
            return None
        fence(connection)
        try:
            to = deployments.roll_back_in(connection, GUARD, found, to_us(now))
        except ConflictError:  # nothing to go back to
            return None
    return f"{version} -> {to}: {found}"


def verdict_in_service(
    hourly: Sequence[Mapping[str, Any]],
    empty: int,
    min_answers: int,
    max_empty: float,
) -> str | None:
    """Why the champion should go, or None.

    hourly: rows of hour_us, arm ('champion', 'control'), shown (answers) and clicks; empty: answers of
    the champion that held no item.
    """
    answers = {"champion": 0, "control": 0}
    for row in hourly:
        if row["arm"] in answers:
            answers[row["arm"]] += row["shown"]
    if answers["champion"] >= min_answers and empty / answers["champion"] > max_empty:
        share = empty / answers["champion"]
        return (
            f"{share:.1%} of {answers['champion']:,} answers were empty, more than {max_empty:.1%}"
        )
    if min(answers.values()) < min_answers:
        return None
    found = uplift(hourly, STRICT_Z)
    if found is None or found["high"] >= 0:
        return None
    return (
        f"click-through minus the control arm's is {found['difference']:+.4f} "
        f"({found['low']:+.4f} to {found['high']:+.4f}) over {answers['champion']:,} and "
        f"{answers['control']:,} answers of the same hours"
    )
