"""What keeps the system fresh and small between trainings, one function a task.

Retention in small batches that do not block writers, clicks attributed, new items made reachable,
erased users followed, and a look at how the champion does in service.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from recsys.config import Settings
from recsys.data.times import to_us
from recsys.engines.newcomers import recent_steps
from recsys.engines.sequence_store import SequenceStore
from recsys.errors import ConflictError
from recsys.evaluation.guard import verdict_in_service
from recsys.registry import delete_version, load_champion, sweep_unregistered
from recsys.serving.erasure import erase
from recsys.storage import event_rows, follower_rows, impression_rows, job_rows, version_rows
from recsys.storage.database import Connection, Database
from recsys.storage.event_reading import read_frame

DAY_US = 86_400 * 1_000_000
HOUR_US = 3_600 * 1_000_000
PRUNE_ROWS = 5_000
ATTRIBUTION_ROWS = 5_000
ATTRIBUTION_OVERLAP_US = 600 * 1_000_000
GUARD = "guard"  # who rolls back by itself
Say = Callable[[str], None]


def prune_events(
    settings: Settings,
    database: Database,
    now: datetime,
    on_progress: Callable[[str, float], None] = lambda stage, share: None,
) -> int:
    """Delete events past `events.retention_days`, a small batch a transaction; how many went."""
    days = settings.events.retention_days
    if days == 0:
        return 0
    before_us = to_us(now) - days * DAY_US
    return _in_batches(
        database,
        PRUNE_ROWS,
        lambda connection: event_rows.delete_before(connection, before_us, PRUNE_ROWS),
        lambda gone: on_progress(f"{gone:,} events pruned", 0.5),
    )


def prune_versions(settings: Settings, database: Database) -> int:
    """Delete the files of versions beyond `registry.keep`; champions a roll back may want stay."""
    with database.connect() as connection:
        deployed = [row["version"] for row in version_rows.list_deployments(connection, 10)]
        rows = version_rows.list_versions(connection, limit=10_000)
    kept = set(list(dict.fromkeys(deployed))[:2])
    gone = 0
    for row in rows[settings.registry.keep :]:
        if row.version in kept or row.state == "deleted":
            continue
        with database.begin() as connection:
            version_rows.set_state(connection, row.version, "deleted")
        delete_version(settings.registry.path, row.version)
        gone += 1
    return gone


def sweep_versions(settings: Settings, database: Database, now: datetime) -> int:
    """Delete files that no version's row names, such as a run leaves that was killed between the
    two; how many folders. Those of the last day stay: their training may be about to register them.
    """
    with database.connect() as connection:
        known = {row.version for row in version_rows.list_versions(connection, limit=100_000)}
    day_ago = now.timestamp() - DAY_US / 1e6
    return len(sweep_unregistered(settings.registry.path, known, day_ago))


def prune_impressions(settings: Settings, database: Database, now: datetime) -> int:
    """Delete answers past `serving.impression_days`, a small batch a transaction; how many went."""
    before_us = to_us(now) - settings.serving.impression_days * DAY_US
    return _in_batches(
        database,
        PRUNE_ROWS,
        lambda connection: impression_rows.delete_impressions_before(
            connection, before_us, PRUNE_ROWS
        ),
    )


def refresh_followers(settings: Settings, database: Database, say: Say) -> int:
    """Count what came after what since the champion learned, for items it does not know; how many.

    So an item that is newer than the model is recommended within minutes, not at the next training.
    """
    champion = load_champion(settings.registry.path, database, say)
    if champion is None:
        return 0
    frame = read_frame(database, int(champion.facts["data_end_us"]) + 1)
    steps = recent_steps(frame, champion.vocabulary, champion.session_gap_seconds)
    with database.begin() as connection:
        return follower_rows.replace_followers(connection, steps)


def follow_removals(settings: Settings, database: Database) -> bool:
    """Take users who were erased out of the sequence files; whether there was anything to do."""
    store = SequenceStore(settings.registry.path / ".sequences")
    if not store.lags_behind_removals(database):
        return False
    try:
        store.update(database)
    except ConflictError:  # a training is at it, and does the same
        return False
    return True


def attribute_clicks(database: Database, now: datetime) -> int:
    """Attribute new events to the answers they came from; how many events were looked at."""
    return _in_batches(
        database,
        ATTRIBUTION_ROWS,
        lambda connection: impression_rows.attribute_clicks(
            connection, to_us(now), ATTRIBUTION_OVERLAP_US, ATTRIBUTION_ROWS
        ),
    )


def guard_champion(
    settings: Settings,
    database: Database,
    now: datetime,
    fence: Callable[[Connection], None] = lambda connection: None,
) -> str | None:
    """Roll back a champion that people click on less than on the control arm's in the same hours,
    or that too often has nothing to show; the reason, or None where it may stay.
    """
    if not settings.promotion.auto_rollback:
        return None
    with database.begin() as connection:
        latest = version_rows.list_deployments(connection, 1)
        if not latest or latest[0]["deployed_by"] == GUARD:
            return None
        version = latest[0]["version"]
        since_us = (latest[0]["deployed_at_us"] // HOUR_US + 1) * HOUR_US
        by = ("hour_us", "arm", "model_version")
        whole = impression_rows.counts(connection, since_us, to_us(now), by)
        empty = impression_rows.empty_answers(connection, since_us, to_us(now), version)
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
            to = version_rows.roll_back(connection, to_us(now), GUARD, found)
        except ConflictError:  # nothing to go back to
            return None
    return f"{version} -> {to}: {found}"


def prune_runs(settings: Settings, database: Database, now: datetime) -> int:
    """Delete runs past `schedule.keep_runs_days`, a small batch a transaction; how many went."""
    before_us = to_us(now) - settings.schedule.keep_runs_days * DAY_US
    return _in_batches(
        database,
        PRUNE_ROWS,
        lambda connection: job_rows.delete_runs_before(connection, before_us, PRUNE_ROWS),
    )


def erase_user(
    settings: Settings, database: Database, user_id: str, now: datetime
) -> dict[str, Any]:
    """Delete all that is stored of a user, for good; the receipt, JSON-ready."""
    return erase(settings, database, user_id, to_us(now))


def _in_batches(
    database: Database,
    size: int,
    step: Callable[[Connection], int],
    on_batch: Callable[[int], None] = lambda total: None,
) -> int:
    """Repeat `step`, a transaction each, until it handles fewer than `size` rows; rows in all."""
    total = 0
    while True:
        with database.begin() as connection:
            handled = step(connection)
        total += handled
        on_batch(total)
        if handled < size:
            return total
