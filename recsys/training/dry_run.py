"""Dry run of a log: read every row once, describe it, and measure whether its order predicts anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from recsys.config import Settings
from recsys.errors import ConfigError
from recsys.events.log_sample import LogSample
from recsys.events.log_statistics import statistics
from recsys.events.sequences import build_sequences
from recsys.events.times import rfc3339, to_us
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.progress import OnRows, quiet
from recsys.storage.engine.database import Database
from recsys.storage.entities.event_batches import SEQUENCE_COLUMNS, read_batches
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.external.external_rows import Tally, reason_kind
from recsys.storage.external.serving_checks import check_serving
from recsys.training.baseline_analysis import analyse_baselines

MAX_REASONS = 20


@dataclass(frozen=True)
class SampleSizes:
    """How many events, of whole users, a large log is judged by."""

    sequence_events: int = 4_000_000  # that sequences are counted on
    ranker_events: int = 1_000_000  # that rankers are fitted to


def check_log(
    settings: Settings,
    database: Database,
    now: datetime,
    path: Path | None = None,
    options: ReadOptions | None = None,
    on_progress: OnRows = quiet,
    sizes: SampleSizes = SampleSizes(),  # noqa: B008
) -> dict[str, Any]:
    """The report on the external table, the service's own, or the file at `path`; JSON-ready.

    Reads every row once; sequences are judged on a sample of whole users where there are more than
    `sizes.sequence_events`. Raises ConfigError or InputError naming what is wrong with the mapping.
    """
    started = time.perf_counter()
    sample, tally = LogSample(sizes.sequence_events), Tally()
    source: dict[str, Any]
    if path is not None:
        source = {"kind": "file", "name": path.name}
        reading, known = options or ReadOptions(), settings.event_types()
        _read_file(path, reading, to_us(now), known, sample, tally, on_progress)
    elif settings.events.mapped:
        source = _read_mapped(settings, database, to_us(now), sample, tally, on_progress)
    else:
        source = {"kind": "own", "name": "events"}
        for batch in read_batches(database, SEQUENCE_COLUMNS):
            sample.append(batch)
            tally.read = tally.kept = sample.events
            on_progress("read", tally.read)
    read_seconds = time.perf_counter() - started
    on_progress("sequences", tally.read)
    frame, share = sample.frame()
    gap = settings.sequences.session_gap_minutes * 60
    found = statistics(frame, build_sequences(frame, gap))
    on_progress("signal", tally.read)
    part, part_share = sample.frame(sizes.ranker_events)
    analysis = analyse_baselines(part, build_sequences(part, gap), settings.training.seed)
    first, last = (sample.first_us, sample.last_us) if sample.events else (None, None)
    return {
        "source": source,
        "notes": dict(tally.notes),
        "rows_read": tally.read,
        "rows_kept": tally.kept,
        "rows_dropped": tally.read - tally.kept,
        "dropped": [
            {"reason": reason, "rows": rows, "example": tally.examples.get(reason, "")}
            for reason, rows in tally.dropped.most_common(MAX_REASONS)
        ],
        "users": round(found["sequences"] / share),
        "users_are_estimated": share < 1,
        "items": len(frame.item_ids),
        "events_without_user": sample.anonymous,
        "first_event_at": None if first is None else rfc3339(first),
        "last_event_at": None if last is None else rfc3339(last),
        "days": round((last - first) / 86_400e6, 2)
        if first is not None and last is not None
        else 0,
        "by_day": [
            {"day": _date(day), "events": sample.by_day[day]} for day in sorted(sample.by_day)
        ],
        "sample": {"share_of_users": share, "events": len(frame)},
        "sequences": found,
        "signal": {**analysis, "sample": {"share_of_users": part_share, "events": len(part)}},
        "read_seconds": round(read_seconds, 2),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _read_file(
    path: Path,
    options: ReadOptions,
    now_us: int,
    known_types: Collection[str],
    sample: LogSample,
    tally: Tally,
    on_progress: OnRows,
) -> None:
    for chunk in read_events(path, options, now_us, known_types=known_types):
        sample.append(chunk.events)
        tally.read += chunk.read
        tally.kept += chunk.events.num_rows
        tally.notes += chunk.notes
        for one in chunk.rejections:
            kind = reason_kind(one.reason)
            tally.dropped[kind] += 1
            tally.examples.setdefault(kind, one.reason)
        if chunk.skipped:
            tally.dropped += Counter({"left out": chunk.skipped})
        on_progress("read", tally.read)


def _read_mapped(
    settings: Settings,
    database: Database,
    now_us: int,
    sample: LogSample,
    tally: Tally,
    on_progress: OnRows,
) -> dict[str, Any]:
    """Read all rows; what the mapping came to, as plain values."""
    source = ExternalEvents(settings, database)
    resolved, rows = source.resolved(), source.rows()
    mapping = resolved.mapping
    for batch in rows.batches(now_us, tally=tally):
        sample.append(batch)
        on_progress("read", tally.read)
    try:
        check_serving(resolved, rows.source)
        refused = None
    except ConfigError as error:
        refused = str(error)
    source.close()
    warnings = list(resolved.warnings)
    if "event_type" not in mapping.columns:
        warnings.append(
            f"no events.event_type_column: every row counts as '{mapping.default_type}' (events.default_type)"
        )
    return {
        "kind": "mapped",
        "name": mapping.shown_name,
        "database": mapping.dialect,
        "columns": {
            meaning: {"name": one.name, "type": one.declared, "read_as": one.kind}
            for meaning, one in mapping.columns.items()
        },
        "new_rows_by": mapping.columns[mapping.along].name,
        "served": refused is None,
        "serving_refused": refused,
        "warnings": warnings,
        "create_index": resolved.create_index,
        "grant": resolved.grant,
    }


def _date(day: int) -> str:
    """Days since 1970 as an ISO date."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
