"""What keeps the system fresh and small between trainings, one function a task.

Retention in small batches that do not block writers, clicks attributed, new items made reachable,
erased users followed.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import closing
from datetime import datetime

import numpy as np

from recsys.config import Settings
from recsys.errors import ConflictError, ModelFileError
from recsys.events.frame import EventFrame
from recsys.events.quality_facts import newest_facts, sequence_facts
from recsys.events.sequences import build_sequences
from recsys.events.times import DAY_US, HOUR_US, MINUTE_US, to_us
from recsys.progress import OnShare, Say, quiet
from recsys.registry import (
    delete_version,
    folder_bytes,
    known_items,
    load_champion,
    sweep_unregistered,
)
from recsys.sequence_store.training_window import open_store
from recsys.storage.dashboard import activity_rows, quality_rows
from recsys.storage.dashboard.event_views import open_event_views
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import (
    account_rows,
    attribute_rows,
    click_rows,
    event_rows,
    feedback_rows,
    impression_rows,
    item_rows,
    job_rows,
    live_quality_rows,
    version_rows,
)
from recsys.storage.entities.event_batches import read_frame
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.events_source import open_events_source
from recsys.storage.external import external_items, external_users
from recsys.training.live_quality import rank_hour

PRUNE_ROWS = 5_000
ATTRIBUTION_ROWS = 5_000
ATTRIBUTION_OVERLAP_US = 600 * 1_000_000
QUALITY_EVENTS = 100_000
SETTLED_US = 5 * MINUTE_US  # after which the events of an hour are there


def prune_events(
    settings: Settings,
    database: Database,
    now: datetime,
    on_progress: OnShare = quiet,
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


def prune_attributes(settings: Settings, database: Database, now: datetime) -> int:
    """Delete the attributes of users who have no event any more, once they have not changed for
    `events.retention_days`; of how many users. Of users of a mapped table, which keeps its own, none.
    """
    days = settings.events.retention_days
    if days == 0 or settings.events.mapped:
        return 0
    before_us = to_us(now) - days * DAY_US
    gone, last = 0, ""
    while True:
        with database.begin() as connection:
            some, after = attribute_rows.delete_idle(connection, before_us, PRUNE_ROWS, last)
        gone += some
        if after is None:
            return gone
        last = after


def prune_versions(settings: Settings, database: Database) -> int:
    """Delete the files of versions beyond `registry.keep`, but for those that serving or a roll back
    may want; how many versions.
    """
    with database.connect() as connection:
        rows = version_rows.list_versions(connection, limit=10_000)
    files = open_model_files(settings, database)
    gone = 0
    for row in rows[settings.registry.keep :]:
        if row.state == "deleted":
            continue
        with database.begin() as connection:
            if not version_rows.retire(connection, row.version):
                continue
        delete_version(settings.registry.path, row.version)
        if files is not None:
            files.delete(row.version)
        gone += 1
    return gone


def sweep_versions(settings: Settings, database: Database, now: datetime) -> int:
    """Delete files that no version's row names, such as a run leaves that was killed between the
    two, and those of deleted versions; how many folders. Those of the last day stay: their training
    may be about to register them.
    """
    with database.connect() as connection:
        known = version_rows.kept_names(connection)
    day_ago = now.timestamp() - DAY_US / 1e6
    files = open_model_files(settings, database)
    if files is not None:
        files.sweep(known, to_us(now) - DAY_US)
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
    files = open_model_files(settings, database)
    champion = load_champion(settings.registry.path, database, say, files)
    if champion is None:
        return 0
    since_us = champion.facts.data_end_us + 1
    store = open_store(settings, database)
    if store.is_mapped:
        # The files read what is new; the table may have no index by which to ask for it.
        try:
            store.update(database, say)
        except ConflictError:  # a training is at it, and the next refresh follows
            return 0
        frame = store.frame(database, since_us)
    else:
        frame = read_frame(database, since_us)
    new = [item_id for item_id in frame.item_ids if item_id not in champion.vocabulary]
    with database.connect() as connection:
        strange = item_rows.outside(connection, new)
    steps = recent_steps(frame, champion.vocabulary, champion.session_gap_seconds, strange)
    with database.begin() as connection:
        return item_rows.replace_followers(connection, steps)


def copy_items(settings: Settings, database: Database, now: datetime, say: Say) -> int:
    """Copy item metadata that `events.items_query` gives; how many items were new or different."""
    if not settings.events.items_query:
        return 0
    done = external_items.copy_items(settings, database, to_us(now))
    if done.rejected:
        say(f"{done.rejected:,} of {done.read:,} items left out; the first: {done.problem}")
    return done.changed


def copy_users(settings: Settings, database: Database, now: datetime, say: Say) -> int:
    """Copy users' attributes that `events.users_query` gives; of how many they were new or different."""
    if not settings.events.users_query:
        return 0
    done = external_users.copy_users(settings, database, to_us(now))
    if done.rejected:
        say(f"{done.rejected:,} of {done.read:,} users left out; the first: {done.problem}")
    return done.changed


def follow_removals(settings: Settings, database: Database) -> bool:
    """Take users who were erased out of the sequence files; whether there was anything to do."""
    store = open_store(settings, database)
    if not store.lags_behind_removals(database):
        return False
    try:
        store.update(database)
    except ConflictError:  # a training is at it, and does the same
        return False
    return True


def enter_deferred(database: Database, now: datetime) -> int:
    """Append to the log the feedback whose time has come; how many events."""
    with database.connect() as connection:
        if not feedback_rows.is_due(connection, to_us(now)):
            return 0
    return _in_batches(
        database, feedback_rows.MOST, lambda one: feedback_rows.enter_due(one, to_us(now))
    )


def attribute_clicks(database: Database, now: datetime) -> int:
    """Attribute new events to the answers they came from; how many events were looked at."""
    looked_at, last = 0, None
    while True:
        with database.begin() as connection:
            count, last = click_rows.attribute_clicks(
                connection, to_us(now), ATTRIBUTION_OVERLAP_US, ATTRIBUTION_ROWS, last
            )
        looked_at += count
        if last is None:
            return looked_at


def prune_runs(settings: Settings, database: Database, now: datetime) -> int:
    """Delete runs past `schedule.keep_runs_days`, a small batch a transaction; how many went."""
    before_us = to_us(now) - settings.schedule.keep_runs_days * DAY_US
    return _in_batches(
        database,
        PRUNE_ROWS,
        lambda connection: job_rows.delete_runs_before(connection, before_us, PRUNE_ROWS),
    )


def count_activity(settings: Settings, database: Database, now: datetime) -> int:
    """Count events by hour and users by day for the dashboard; how many days were counted anew.

    How large things are is written down beside. What the dashboard needs no more goes: fine slots,
    and sessions that have run out.
    """
    now_us, auth = to_us(now), settings.auth
    registry, free = folder_bytes(settings.registry.path)
    with database.begin() as connection:
        quality_rows.put_size(connection, now_us, registry, free)
        activity_rows.prune_service_counts(connection, now_us)
        idle_us, life_us = auth.session_idle_minutes * 60e6, auth.session_hours * HOUR_US
        account_rows.delete_old_sessions(connection, now_us, round(idle_us), round(life_us))
    with closing(open_events_source(settings, database)) as source:
        return open_event_views(source, database).count_activity(now_us)


def report_quality(settings: Settings, database: Database, now: datetime, say: Say) -> int:
    """Look at a sample of the events for the dashboard; how many were looked at.

    Bounded, however many events there are: whole users of about QUALITY_EVENTS events, the newest
    QUALITY_EVENTS, and the newest rows of the quarantine.
    """
    with database.connect() as connection:
        total = activity_rows.event_total(connection, own=not settings.events.mapped).events
        champion = version_rows.champion(connection)
        rejected = quality_rows.summarise_rejected(connection)
    known = None
    if champion is not None:
        try:
            known = known_items(settings.registry.path, champion.version, champion.manifest_sha256)
        except ModelFileError as error:
            say(f"unknown items are not counted: {error}")
    with closing(open_events_source(settings, database)) as source:
        views = open_event_views(source, database)
        sample, newest = views.samples(QUALITY_EVENTS, total, to_us(now))
    facts = {
        "total": total,
        "champion": None if champion is None else champion.version,
        "sequences": sequence_facts(sample),
        "newest": newest_facts(newest, known),
        "rejected": rejected,
    }
    with database.begin() as connection:
        quality_rows.put_report(connection, to_us(now), facts)
    return len(sample) + (0 if newest is sample else len(newest))


def measure_live_quality(settings: Settings, database: Database, now: datetime, say: Say) -> int:
    """Rank a sample of the newest finished hour that nobody has looked at; how many positions.

    An hour a call, of the last day; one counts as finished SETTLED_US after its end.
    """
    now_us = to_us(now)
    with database.connect() as connection:
        until_us = now_us - SETTLED_US
        hour_us = live_quality_rows.newest_missing(connection, now_us - DAY_US, until_us)
    if hour_us is None:
        return 0
    with closing(open_events_source(settings, database)) as source:
        found = rank_hour(settings, database, source, hour_us, now_us, say)
    with database.begin() as connection:
        live_quality_rows.put_hour(connection, found)
    return found.positions


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


LEAST = 2  # users and sessions that took a step
HELD_DOWN = 5.0  # that went on from an item and were not seen
FOLLOWERS = 20  # kept of each item
MOST = 100_000  # kept in all, the surest first

Step = tuple[str, str, float]  # item id, next item id, share


def recent_steps(
    frame: EventFrame,
    known: Container[str],
    session_gap_seconds: float,
    strange: Container[str] = frozenset(),
) -> list[Step]:
    """Steps from or to items that are not `known`, in the events of `frame`.

    strange: items that the catalogue lacks, where there is one. To them users' steps count alone: a
    page's key posts for sessions, and any text.
    """
    sequences = build_sequences(frame, session_gap_seconds)
    owners, items = sequences.owners(), sequences.items
    if len(items) < 2:
        return []
    steps = (owners[1:] == owners[:-1]) & (items[1:] != items[:-1])
    count = len(frame.item_ids)
    pairs = items[:-1][steps].astype(np.int64) * count + items[1:][steps]
    takers = owners[1:][steps]
    odd = np.array([name in strange for name in frame.item_ids], np.bool_)
    if odd.any():
        users = np.array([key.startswith("u:") for key in sequences.keys], np.bool_)
        trusted = users[takers] | ~odd[pairs % count]
        takers, pairs = takers[trusted], pairs[trusted]
    order = np.lexsort((pairs, takers))
    takers, pairs = takers[order], pairs[order]
    again = (takers[1:] == takers[:-1]) & (pairs[1:] == pairs[:-1])
    taken_by = pairs[np.append(True, ~again)] if len(pairs) else pairs  # once an owner
    taken = np.bincount(taken_by // count, minlength=count)
    pairs, times = np.unique(taken_by, return_counts=True)
    of, to = pairs // count, pairs % count
    new = np.array([name not in known for name in frame.item_ids], np.bool_)
    kept = (times >= LEAST) & (new[of] | new[to])
    of, to, times = of[kept], to[kept], times[kept]
    order = np.lexsort((to, -times, of))
    of, to, times = of[order], to[order], times[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    kept = rank < FOLLOWERS
    of, to, shares = of[kept], to[kept], times[kept] / (taken[of[kept]] + HELD_DOWN)
    surest = np.argsort(-shares, kind="stable")[:MOST]
    names = frame.item_ids
    return [(names[of[at]], names[to[at]], float(shares[at])) for at in surest]
