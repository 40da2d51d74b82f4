"""What is wrong with an installation, and what to do about it: one function a check.

Nothing is changed, and no check stops the others. A finding is `ok`, `warn` (it works, but look) or
`fail` (it does not, or not for long).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from recsys.config import Settings
from recsys.config.exclude_seen import AUTO, DEFAULT, seen_types
from recsys.errors import RecsysError
from recsys.events.times import HOUR_US, from_us, to_us
from recsys.ops.backup import NAME as BACKUP_NAME
from recsys.ops.machine_checks import (
    GIB,
    Finding,
    State,
    auth_findings,
    disk_findings,
    files_findings,
    privacy_findings,
)
from recsys.registry import read_version
from recsys.storage.engine import database_health
from recsys.storage.engine.database import Connection, Database
from recsys.storage.engine.replica import Replica
from recsys.storage.entities import (
    event_rows,
    job_rows,
    key_rows,
    lease_rows,
    live_quality_rows,
    rejected_rows,
    schedule_rows,
    version_rows,
)
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.schema import migrate

CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 2.0, 60.0
OLD_MODEL_HOURS = 72.0  # where schedule.max_model_age_hours says nothing
OLD_BACKUP_HOURS = 50.0
BIG_LOG_BYTES = GIB
MUCH_LOG_BYTES = 16 * 2**20


def examine(
    settings: Settings, database: Database, config: Path | None, now: datetime
) -> list[Finding]:
    """All findings, in the order of the checks."""
    findings = [*files_findings(settings, config), *privacy_findings(settings, database)]
    findings += [*auth_findings(settings), *disk_findings(settings, database)]
    if database.file is not None and not database.file.exists():  # connecting would make one
        return [*findings, _schema(None)]
    started = time.perf_counter()
    try:
        revision = migrate.current(database)
    except RecsysError as error:
        advice = "check database.url, and that the server is running and accepts this user"
        return [*findings, Finding("database", "fail", str(error), advice)]
    spent = (time.perf_counter() - started) * 1e3
    findings.append(Finding("database", "ok", f"{database.dialect} answers in {spent:.0f} ms"))
    findings.append(_schema(revision))
    if revision != migrate.head():
        return findings
    for check, look in CHECKS.items():
        try:
            with database.connect() as connection:
                findings += look(settings, database, connection, now)
        except RecsysError as error:
            findings.append(Finding(check, "fail", str(error)))
    return findings


def _schema(revision: str | None) -> Finding:
    wanted = migrate.head()
    if revision == wanted:
        return Finding("schema", "ok", f"at revision {revision}, as this release requires")
    if revision is None:
        return Finding("schema", "fail", "the database has no tables", "run: recsys db upgrade")
    if migrate.knows(revision):
        found = f"at revision {revision}, this release requires {wanted}"
        return Finding("schema", "fail", found, "back up, then run: recsys db upgrade")
    found = f"revision {revision} belongs to a newer release"
    return Finding(
        "schema", "fail", found, "install that release, or: recsys restore PATH --replace"
    )


def _indexes(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    slow = database_health.unindexed(connection)
    if slow:
        found = f"no index covers reading the history of a {' or '.join(slow)}"
        advice = "rebuild it: recsys backup, then recsys restore --replace"
        yield Finding("indexes", "fail", found, advice)
    else:
        yield Finding("indexes", "ok", "a request's history is read through an index")


def _connections(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    found = database_health.connections_left(connection)
    if found is None:
        return
    left, most = found
    serving = settings.serving
    wanted = serving.workers * (settings.database.pool_size + serving.threads) * 2
    told = f"{left} of {most} connections are free; the service may take up to {wanted}"
    if wanted < left:
        yield Finding("connections", "ok", told)
    else:
        advice = "raise max_connections, or lower serving.workers and database.pool_size"
        yield Finding("connections", "warn", told, advice)


def _own_table(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    if not settings.events.mapped:
        return
    try:
        with closing(ExternalEvents(settings, database)) as source:
            resolved = source.resolved()
            source.serving()
    except RecsysError as error:
        advice = "see [events] and docs/own-table.md; test the mapping with: recsys events check"
        yield Finding("own table", "fail", str(error), advice)
        return
    found = f"{resolved.mapping.shown_name} is read through its indexes"
    if resolved.mapping.chunked:
        yield Finding("own table", "ok", found)
    else:
        found = f"no index of {resolved.mapping.shown_name} starts with the column it is read by"
        advice = "every training reads the whole table; index the order or time column"
        yield Finding("own table", "warn", found, advice)


def _replica(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    if not settings.database.replica_url.get_secret_value():
        return
    replica = Replica(settings.database)
    try:
        behind = replica.lag_bytes(connection)
    except RecsysError as error:
        advice = "see database.replica_url; until then, histories are read from the primary"
        yield Finding("replica", "fail", str(error), advice)
        return
    finally:
        replica.close()
    found = f"the standby is {behind:,} bytes of log behind"
    if behind > MUCH_LOG_BYTES:
        advice = "histories are read from the primary until it has caught up"
        yield Finding("replica", "warn", found, advice)
    else:
        yield Finding("replica", "ok", found)


def _sizes(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    held = database_health.size(database, connection)
    told = f"{held.bytes / GIB:.2f} GiB, about {held.events:,} events"
    if held.log_bytes > BIG_LOG_BYTES:
        told += f", and {held.log_bytes / GIB:.1f} GiB of write-ahead log"
        advice = "a very long read is open: find it, or restart the service"
        yield Finding("size", "warn", told, advice)
    else:
        yield Finding("size", "ok", told)
    waiting = rejected_rows.count_rejected(connection)
    if waiting:
        found = f"{waiting:,} rows are not valid events"
        yield Finding("quarantine", "warn", found, "see why: recsys events rejected")
    else:
        yield Finding("quarantine", "ok", "empty")


def _event_types(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    """Types that the configuration names and no event is of: what rests on them does nothing."""
    seen = event_rows.event_types(connection)
    if not seen:
        return
    known = f"event types: {', '.join(sorted(seen)[:20])}"
    excluded = seen_types(settings.serving.exclude_seen)
    if excluded and not excluded & seen:
        found = f"no event has a type in serving.exclude_seen ({settings.serving.exclude_seen})"
        if settings.serving.exclude_seen == AUTO:
            found = "serving.exclude_seen is auto, and no event has a type that logs call buying"
        advice = f"purchased items are not excluded; use the log's own event types; {known}"
        yield Finding("event types", "warn", found, advice)
    elif excluded and settings.serving.exclude_seen not in (AUTO, DEFAULT) and excluded - seen:
        unknown = ", ".join(sorted(excluded - seen))
        found = f"serving.exclude_seen names types that no event has: {unknown}"
        yield Finding("event types", "warn", found, known)
    sequences = settings.sequences
    named = {
        "input_event_types": sequences.input_event_types,
        "target_event_types": sequences.target_event_types,
        "event_weights": sequences.event_weights,
    }
    for key, types in named.items():
        if missing := [name for name in types if name not in seen]:
            found = f"sequences.{key} names types that no event has: {', '.join(missing)}"
            yield Finding("event types", "warn", found, known)


def _clock(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    ahead = database_health.clock_ahead_seconds(connection)
    newest = database_health.newest_receipt_us(connection)
    advice = "set both clocks by NTP"
    state: State = "ok" if abs(ahead) < CLOCK_WARN_SECONDS else "warn"
    if abs(ahead) >= CLOCK_FAIL_SECONDS:
        state = "fail"
    if newest is not None and newest - to_us(now) > CLOCK_FAIL_SECONDS * 1e6:
        found = f"the newest event was received at {from_us(newest):%Y-%m-%d %H:%M}, in the future"
        yield Finding(
            "clock", "fail", found, "this clock was set back, or another ran ahead: " + advice
        )
        return
    told = f"the database's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this one"
    told = told if database.dialect == "postgresql" else "one machine, one clock"
    yield Finding("clock", state, told, "" if state == "ok" else advice)


def _model(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    row = version_rows.champion(connection)
    if row is None:
        yield Finding("model", "warn", "no version has been promoted", "run: recsys train")
        return
    try:
        files = open_model_files(settings, database)
        read_version(settings.registry.path, row.version, row.manifest_sha256, files)
    except RecsysError as error:
        advice = "run: recsys models rollback, or restore a backup, or train"
        yield Finding("model", "fail", str(error), advice)
        return
    hours = (to_us(now) - row.data_end_us) / HOUR_US
    limit = settings.schedule.max_model_age_hours or OLD_MODEL_HOURS
    told = f"{row.version} ({row.ranking}) is intact; its newest event is {hours:.0f} hours old"
    if hours > limit:
        advice = "see why with: recsys jobs list; run: recsys train"
        yield Finding("model", "warn", told, advice)
    else:
        yield Finding("model", "ok", told)


def _live_quality(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    """Whether what is served finds more of what comes next than popular items alone would."""
    found = live_quality_rows.of_late(connection, to_us(now))
    if found is None:
        yield Finding("live quality", "ok", "no click of the last day was ranked yet")
        return
    live, popular = (
        f"recall@20 {found.recall(system):.3f}, MRR@20 {found.mrr(system):.3f}"
        for system in ("live", "popular")
    )
    told = f"served: {live}; popular items: {popular}; {found.positions:,} positions"
    if found.falls_below_popular:
        advice = "compare the versions, roll back or train; does its live state follow the log?"
        yield Finding("live quality", "warn", told, advice)
    else:
        yield Finding("live quality", "ok", told)


def _scheduler(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    # Renewed since `now` was read, its heartbeat is not in the future.
    silent = max(0.0, (to_us(now) - (lease.renewed_at_us or 0)) / 1e6)
    if lease.holder is None:
        yield Finding("scheduler", "warn", "no scheduler is running", "start one: recsys schedule")
    elif silent > max(60.0, 4 * settings.schedule.lease_seconds):
        found = f"{lease.holder} leads but is not responding: last heartbeat {silent / 60:.0f} minutes ago"
        yield Finding("scheduler", "fail", found, "start one: recsys schedule")
    else:
        yield Finding("scheduler", "ok", f"{lease.holder} leads, last heartbeat {silent:.0f} s ago")
    paused = [row.job for row in schedule_rows.list_schedules(connection) if row.paused]
    if paused:
        yield Finding(
            "schedules",
            "warn",
            f"paused: {', '.join(paused)}",
            "resume them when done: recsys jobs resume JOB",
        )
    bad = {
        job: number
        for job, state, number in job_rows.state_counts(connection, to_us(now) - 24 * HOUR_US)
        if state in ("failed", "timed_out")
    }
    if bad:
        found = ", ".join(f"{number} of {job}" for job, number in sorted(bad.items()))
        advice = "see: recsys jobs list, recsys jobs logs RUN"
        yield Finding("runs", "warn", f"failed in the last day: {found}", advice)
    else:
        yield Finding("runs", "ok", "none failed in the last day")


def _keys(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    active = [key for key in key_rows.list_keys(connection) if key.revoked_at_us is None]
    if not active and settings.auth.enabled:
        found = "there is no active API key, so no client can connect"
        yield Finding("keys", "warn", found, "run: recsys keys create shop --scope read")
    else:
        admins = sum("admin" in key.scopes for key in active)
        yield Finding("keys", "ok", f"{len(active)} active, {admins} with scope admin")


def _backups(
    settings: Settings, database: Database, connection: Connection, now: datetime
) -> Iterator[Finding]:
    if not settings.schedule.backup:
        advice = "set schedule.backup, or back up by other means"
        yield Finding("backups", "warn", "no backup is scheduled", advice)
        return
    folder = settings.schedule.backup_path
    names = [path for path in folder.glob("*.zip") if BACKUP_NAME.fullmatch(path.name)]
    if not names:
        yield Finding("backups", "warn", f"no backup in {folder}", "run: recsys backup")
        return
    hours = (now.timestamp() - max(path.stat().st_mtime for path in names)) / 3_600
    state: State = "ok" if hours < OLD_BACKUP_HOURS else "warn"
    advice = "" if state == "ok" else "see why: recsys jobs list"
    yield Finding("backups", state, f"{len(names)}, the newest {hours:.0f} hours old", advice)


Look = Callable[[Settings, Database, Connection, datetime], Iterator[Finding]]
CHECKS: dict[str, Look] = {
    "indexes": _indexes,
    "connections": _connections,
    "own table": _own_table,
    "replica": _replica,
    "size": _sizes,
    "event types": _event_types,
    "clock": _clock,
    "model": _model,
    "live quality": _live_quality,
    "scheduler": _scheduler,
    "keys": _keys,
    "backups": _backups,
}
