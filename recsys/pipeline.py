"""START HERE: the whole system, one function a workflow.

    events in a database -> event frame -> per-user sequences -> time split -> batches -> LSTM
    -> scores -> evaluation report -> gate -> registry -> served recommendation -> click -> event

Read `train` for the first half and `recommend` for the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys.config import Settings
from recsys.data.checks import Check, Known, check_frame
from recsys.data.events import EventFrame
from recsys.data.item_files import ItemMap, ItemOptions, read_items
from recsys.data.readers import ReadOptions, read_events, read_rejected
from recsys.data.splits import cut_for_share
from recsys.data.times import to_us
from recsys.data.vocabulary import Vocabulary
from recsys.data.writers import writing
from recsys.engines.comparison import Inputs, compare_networks
from recsys.engines.learning import Learned, learn
from recsys.engines.log_check import check_log
from recsys.engines.memory import peak_mib
from recsys.engines.sequence_store import Reading, SequenceStore
from recsys.engines.training_log import Log, make_log
from recsys.engines.trial import Trial, matrix_costs, run_trial, window_positions
from recsys.engines.tuning import Tuned, adopted, adoption
from recsys.engines.tuning import tune as search
from recsys.engines.window_pass import learn_window
from recsys.errors import (
    ConflictError,
    DataCheckError,
    ModelFileError,
    NotEnoughDataError,
    SequenceFileError,
    SourceUnavailableError,
)
from recsys.evaluation.gate import Verdict, verdict
from recsys.evaluation.report import Scorer
from recsys.model.onnx_export import export_onnx
from recsys.model.training import Progress
from recsys.registry import (
    Bundle,
    keep_version,
    load_champion,
    new_version,
    read_version,
    write_version,
)
from recsys.serving.answers import Answer, Request
from recsys.serving.everyone import rank_everyone
from recsys.serving.recommender import Recommender
from recsys.storage import (
    item_rows,
    rejected_rows,
    version_rows,
)
from recsys.storage.audit_rows import CLI, add_audit
from recsys.storage.database import Connection, Database
from recsys.storage.event_import import ImportSummary, add_rejections, import_chunks
from recsys.storage.event_source import EventSource
from recsys.storage.log_reading import export_batches, frame_since
from recsys.storage.model_files import open_model_files
from recsys.tracing import traced

DAY_US = 86_400 * 1_000_000
REPLAY_ROWS = 10_000
Say = Callable[[str], None]


def import_events(
    database: Database,
    path: Path,
    options: ReadOptions,
    now: datetime,
    on_progress: Callable[[str, int], None] = lambda stage, rows: None,
) -> ImportSummary:
    """A file -> events. Repeating it adds nothing; bad rows go to the quarantine."""
    now_us = to_us(now)
    return import_chunks(
        database, read_events(path, options, now_us), path.name, now_us, on_progress
    )


def import_items(database: Database, path: Path, columns: str, now: datetime) -> dict[str, int]:
    """A file of metadata -> items; the last row of an id counts. Bad rows are counted by reason."""
    chunks = read_items(path, ItemOptions(columns=ItemMap.parse(columns)))
    read = stored = rejected = new = 0
    for chunk in chunks:
        read, rejected = read + chunk.read, rejected + len(chunk.rejections)
        stored += len(chunk.items)
        with database.begin() as connection:
            new += item_rows.put_items(connection, chunk.items, to_us(now))
            add_rejections(connection, path.name, chunk.rejections, to_us(now))
    return {"read": read, "stored": stored, "new": new, "rejected": rejected}


def export_events(settings: Settings, database: Database, path: Path, now: datetime) -> int:
    """All events -> a Parquet, CSV or JSON Lines file, in order of arrival; how many.

    Of a mapped table in that of its chunks, without users who were erased.
    """
    with writing(path) as write:
        return sum(write(batch) for batch in export_batches(settings, database, to_us(now)))


def check_events(
    settings: Settings,
    database: Database,
    now: datetime,
    path: Path | None = None,
    options: ReadOptions | None = None,
    on_progress: Callable[[str, int], None] = lambda stage, rows: None,
) -> dict[str, Any]:
    """Dry run of the mapped table, the service's own, or a file: what is in it, and whether its order
    is worth learning. Nothing is stored.
    """
    return check_log(settings, database, now, path, options, on_progress)


def replay_rejected(
    database: Database, options: ReadOptions, source: str | None, now: datetime
) -> dict[str, int]:
    """The quarantine read once more, with other options; rows that become events leave it."""
    read = accepted = duplicates = after_id = 0
    while True:
        with database.connect() as connection:
            rows = rejected_rows.list_rejected(connection, REPLAY_ROWS, after_id, source)
        if not rows:
            break
        after_id = rows[-1]["id"]
        chunk = read_rejected([row["raw"] for row in rows], options, to_us(now))
        still = {rejection.position for rejection in chunk.rejections}
        good = replace(chunk, rejections=[], read=chunk.read - len(still))
        summary = import_chunks(database, [good], "quarantine", to_us(now))
        with database.begin() as connection:
            ids = [row["id"] for place, row in enumerate(rows) if place not in still]
            rejected_rows.mark_replayed(connection, ids, to_us(now))
        read, accepted = read + len(rows), accepted + summary.accepted
        duplicates += summary.duplicates
    return {
        "read": read,
        "accepted": accepted,
        "duplicates": duplicates,
        "rejected": read - accepted - duplicates,
    }


@traced("read events")
def events_so_far(
    settings: Settings, database: Database, now: datetime, say: Say = lambda line: None
) -> EventFrame:
    """Events that count -> the event frame, through sequence files that are read on, not anew."""
    rows = EventSource(settings, database).rows()
    folder = settings.registry.path / ".sequences"
    store = SequenceStore(folder, settings.training.processes, mapped=rows)
    try:
        done = store.update(database, say)
        say(f"read {done.new_rows:,} new events in {done.seconds:.1f} s")
        try:
            return store.frame(database, _horizon(settings, now))
        except SequenceFileError as error:
            say(f"{error}; the files are built anew")
            store.forget()
            store.update(database, say)
            return store.frame(database, _horizon(settings, now))
    except SourceUnavailableError:
        raise
    except (ConflictError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        say(f"no sequence files ({reason}): the database is read instead")
        return frame_since(settings, database, to_us(now), _horizon(settings, now))


def bring_up_to_date(
    settings: Settings, database: Database, reading: Reading, say: Say = lambda line: None
) -> None:
    """Read new events into the sequence files by `reading`, a cluster's tasks say."""
    rows = EventSource(settings, database).rows()
    store = SequenceStore(settings.registry.path / ".sequences", mapped=rows, reading=reading)
    done = store.update(database, say)
    say(f"read {done.new_rows:,} new events in {done.seconds:.1f} s")


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    version: str
    promoted: bool
    verdict: Verdict
    trial: Trial
    facts: dict[str, Any]


@traced("train")
def train(
    settings: Settings,
    database: Database,
    now: datetime,
    *,
    promote: bool = True,
    force: bool = False,
    by: str = "cli",
    run_id: int | None = None,
    tuned: dict[str, dict[str, Any]] | None = None,
    fence: Callable[[Connection], None] = lambda connection: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: Say = lambda line: None,
    extra: Callable[[Vocabulary], dict[str, Scorer]] = lambda vocabulary: {},
) -> Trained:
    """Events -> checks -> sequences -> model -> evaluation -> candidate -> gate -> champion.

    `tuned` are settings that `tune` found; they stay with the version, and trainings go on with those
    of the champion, so they are adopted if the gate lets the version through. `fence` is called in the transaction that publishes, and may refuse.
    `extra` gives scorers that are shown beside the others and judged by nobody. Raises
    NotEnoughDataError, DataCheckError, TrainingError, StorageUnavailableError; the champion then
    goes on.
    """
    with database.connect() as connection:
        before = version_rows.champion_name(connection)
    files = open_model_files(settings, database)
    champion = load_champion(settings.registry.path, database, say, files)
    taken_on = (champion.facts.get("adopted") or {}) if champion is not None else {}
    if tuned is not None:
        taken_on = adoption(settings, tuned)
    settings = adopted(settings, taken_on)
    frame = events_so_far(settings, database, now, say)
    say(f"{len(frame):,} events of {len(frame.user_keys):,} users")
    checks = _check(frame, settings, champion, say)
    with database.connect() as connection:
        categories = item_rows.first_categories(connection)
    log = make_log(frame, settings, categories)
    cut_us = _cut(log, settings, champion)

    learned = learn(
        log,
        settings,
        new_version(now),
        cut_us,
        on_progress,
        champion=_warm_champion(settings, champion, now),
        workplace=settings.registry.path / ".training",
    )
    if learned.warm:
        say("started from the champion's weights")
    each = f" (recall@20/MRR@20 of each: {_shown(learned)})" if learned.validation else ""
    say(f"ranks with: {learned.bundle.ranking}{each}")
    others = extra(learned.bundle.vocabulary)
    trial = run_trial(log, learned.bundle, champion, cut_us, settings, others)
    decision = verdict(
        trial.outcomes["served"].ranks,
        trial.outcomes["champion"].ranks if champion is not None else None,
        {name: trial.outcomes[name].ranks for name in learned.bundle.rankers},
        trial.positions.owners,
        ranking=learned.bundle.ranking,
        margin=settings.promotion.margin,
        min_positions=settings.promotion.min_positions,
        draws=settings.evaluation.bootstrap_draws,
        seed=settings.training.seed,
    )
    say(decision.reason)

    bundle, window = learned.bundle, {"learned": False}
    if settings.promotion.learn_window and len(trial.positions):
        positions = window_positions(log, learned.bundle, cut_us)
        bundle, window = learn_window(log, learned, positions, settings, on_progress)
    facts = {
        "adopted": taken_on,
        "checks": [check.plain() for check in checks],
        "judged_against": None if champion is None else champion.version,
        "metrics": trial.metrics,
        "breakdown": trial.breakdown,
        "validation": {name: found.plain() for name, found in learned.validation.items()},
        "learning_curve": learned.curve.plain(),
        "blends": {name: blend.plain() for name, blend in bundle.blends.items()},
        "cold_started_us": _cold_started(learned, champion, now),
        "network_bytes": bundle.network_bytes,
        "item_matrix": matrix_costs(log, learned.bundle, cut_us),
        "peak_mib": peak_mib(),
        "window": {"from_us": cut_us, "positions": len(trial.positions), **window},
        "settings": {
            name: getattr(settings, name).model_dump(mode="json")
            for name in ("sequences", "model", "training", "evaluation", "promotion")
        },
    }
    row = _write_files(settings, now, replace(bundle, facts=facts), log, frame, decision, run_id)
    keep_version(settings.registry.path, row.version, files)
    live = promote and (decision.promote or force)
    with database.begin() as connection:
        fence(connection)
        version_rows.add_version(connection, row)
        if live and not force and version_rows.champion_name(connection) != before:
            # It was compared with another; `models promote` is there for who knows better.
            say("not promoted: another version became champion meanwhile")
            live = False
        if live:
            forced = f"forced; the gate said: {decision.reason}"
            reason = decision.reason if decision.promote else forced
            version_rows.deploy(connection, row.version, to_us(now), by, reason)
        if live and force and not decision.promote:
            details = {"reason": reason}
            add_audit(connection, CLI, "model.force_promote", row.version, to_us(now), details)
    return Trained(row.version, live, decision, trial, facts)


@dataclass(frozen=True)
class Evaluated:
    """A version and every ranker on one window that the version has not learned."""

    version: str
    metrics: dict[str, dict[str, float]]
    positions: int
    window_from_us: int
    note: str


def evaluate(
    settings: Settings, database: Database, now: datetime, version: str | None = None
) -> Evaluated:
    """Any registered version (default: the champion) and every ranker on the same time split.

    The split is where the version's data ends, so that nothing it learned is asked of it. Where no
    event is newer, the figures are those from before it learned its test window. Raises
    NotFoundError, or NotEnoughDataError where nothing was promoted yet.
    """
    with database.connect() as connection:
        row = (
            version_rows.champion(connection)
            if version is None
            else version_rows.get_version(connection, version)
        )
    if row is None:
        raise NotEnoughDataError("no version has been promoted yet; run: recsys train")
    files = open_model_files(settings, database)
    bundle = read_version(settings.registry.path, row.version, row.manifest_sha256, files)
    log = make_log(events_so_far(settings, database, now), settings)
    trial = run_trial(log, bundle, None, row.data_end_us + 1, settings)
    if len(trial.positions):
        note = "on the events that are newer than the version's data"
        metrics, cut_us, positions = trial.metrics, trial.cut_us, len(trial.positions)
    else:
        note = "on its test window, ranked before the version learned that window"
        metrics = row.facts["metrics"]
        cut_us, positions = row.facts["window"]["from_us"], row.facts["window"]["positions"]
    return Evaluated(row.version, metrics, positions, cut_us, note)


def compare(
    settings: Settings,
    database: Database,
    now: datetime,
    networks: Sequence[str],
    seeds: int,
    on_progress: Callable[[Progress], None],
    say: Say,
) -> dict[str, Any]:
    """Train each of `networks` on what came before the test window, with equal budgets, and rank the
    window by all of them, unblended and blended, and by every ranker. Nothing is registered.

    Raises NotEnoughDataError where the window or what precedes it holds too little.
    """
    frame = events_so_far(settings, database, now)
    with database.connect() as connection:
        categories = item_rows.first_categories(connection)
    log = make_log(frame, settings, categories)
    inputs = Inputs(log, None, _cut(log, settings, None))
    return compare_networks(settings, inputs, seeds, networks, on_progress, say)


def tune(
    settings: Settings,
    database: Database,
    now: datetime,
    trials: int,
    timeout_seconds: float | None,
    on_progress: Callable[[int, Progress], None] = lambda number, progress: None,
    on_trial: Callable[[int, float | None, dict[str, Any]], None] = lambda number, mrr, found: None,
) -> Tuned:
    """Search for settings that rank validation better; goes on where an earlier search stopped."""
    frame = events_so_far(settings, database, now)
    with database.connect() as connection:
        categories = item_rows.first_categories(connection)
    log = make_log(frame, settings, categories)
    cut_us = _cut(log, settings, None)
    folder = settings.registry.path / ".tuning"
    return search(log, settings, cut_us, folder, trials, timeout_seconds, on_progress, on_trial)


def recommend(recommender: Recommender, request: Request, now: datetime) -> Answer:
    """History -> candidates -> filters -> top k. Over HTTP the web asks the recommender itself."""
    return recommender.recommend(request, to_us(now))


def recommend_all(settings: Settings, database: Database, k: int, path: Path, now: datetime) -> int:
    """The top k of every user with events -> a Parquet file (user_id, item_id, rank, score).

    Items the user has bought, or whatever `serving.exclude_seen` says, are left out, and so are
    unavailable ones. Raises NotEnoughDataError where no version was promoted yet.
    """
    files = open_model_files(settings, database)
    bundle = load_champion(settings.registry.path, database, lambda line: None, files)
    if bundle is None:
        raise NotEnoughDataError("no version has been promoted yet; run: recsys train")
    with database.connect() as connection:
        hidden = item_rows.unavailable_items(connection)
    frame = frame_since(settings, database, to_us(now))
    with writing(path) as write:
        return sum(
            write(batch)
            for batch in rank_everyone(bundle, frame, hidden, settings.serving.exclude_seen, k)
        )


def promote(database: Database, version: str, now: datetime, by: str, reason: str) -> None:
    """Make a registered version the champion."""
    with database.begin() as connection:
        version_rows.deploy(connection, version, to_us(now), by, reason)
        add_audit(connection, CLI, "model.promote", version, to_us(now), {"reason": reason})


def roll_back(database: Database, now: datetime, by: str, reason: str) -> str:
    """Go back to the champion before this one; its version."""
    with database.begin() as connection:
        version = version_rows.roll_back(connection, to_us(now), by, reason)
        add_audit(connection, CLI, "model.rollback", version, to_us(now), {"reason": reason})
        return version


def export_model(settings: Settings, database: Database, version: str, path: Path) -> float:
    """A version's network as an ONNX file; the largest difference found to the network itself.

    Raises NotFoundError, ModelFileError, MissingExtraError.
    """
    with database.connect() as connection:
        row = version_rows.get_version(connection, version)
    files = open_model_files(settings, database)
    bundle = read_version(settings.registry.path, row.version, row.manifest_sha256, files)
    if bundle.network is None:
        raise ModelFileError(f"version {version} holds no network")
    return export_onnx(bundle.network, bundle.repeats.current_may_recur, path)


def _warm_champion(settings: Settings, champion: Bundle | None, now: datetime) -> Bundle | None:
    """The champion to start from; None where a cold start is due, wanted, or all there is."""
    if champion is None or not settings.training.warm_start:
        return None
    cold_us = champion.facts.get("cold_started_us", 0)
    due = cold_us + settings.training.cold_start_days * DAY_US
    return champion if to_us(now) < due else None


def _cold_started(learned: Learned, champion: Bundle | None, now: datetime) -> int:
    if learned.warm and champion is not None:
        return int(champion.facts.get("cold_started_us", 0))
    return to_us(now)


def _horizon(settings: Settings, now: datetime) -> int:
    """The time from which on events count."""
    days = [d for d in (settings.sequences.max_days, settings.events.retention_days) if d]
    return max(0, to_us(now) - min(days) * DAY_US) if days else 0


def _cut(log: Log, settings: Settings, champion: Bundle | None) -> int:
    """Where the test window starts: never inside what the champion has learned."""
    # Checked once more: of the types that count there may be fewer.
    if log.sequences.event_count < settings.training.min_events:
        raise NotEnoughDataError(
            f"{log.sequences.event_count} events; training.min_events asks for "
            f"{settings.training.min_events}"
        )
    cut_us = cut_for_share(log.sequences, settings.evaluation.window_share)
    known_until = champion.facts["data_end_us"] if champion is not None else 0
    return max(cut_us, known_until + 1)


def _check(frame: EventFrame, settings: Settings, champion: Bundle | None, say: Say) -> list[Check]:
    """Check the log before anything is learned from it. Raises NotEnoughDataError, DataCheckError."""
    known = None
    if champion is not None:
        until_us = int(champion.facts["data_end_us"])
        known = Known(champion.vocabulary, champion.event_types, until_us)
    checks = check_frame(frame, settings, known)
    for check in checks:
        say(str(check))
    failed = [check for check in checks if not check.passed]
    if failed:
        scarce = all(check.name in ("min_events", "min_users") for check in failed)
        reason = "; ".join(str(check).removeprefix("FAILED: ") for check in failed)
        raise (NotEnoughDataError if scarce else DataCheckError)(reason)
    return checks


@traced("write files")
def _write_files(
    settings: Settings,
    now: datetime,
    bundle: Bundle,
    log: Log,
    frame: EventFrame,
    decision: Verdict,
    run_id: int | None,
) -> version_rows.VersionRow:
    """Files first, then the row, which this gives: a version that has a row has all its files."""
    times, window = log.sequences.timestamps_us, bundle.facts["window"]
    end_us = int(times.max()) if window["learned"] else window["from_us"] - 1
    bundle.facts["data_end_us"] = end_us
    digest, size = write_version(settings.registry.path, bundle)
    return version_rows.VersionRow(
        version=bundle.version,
        created_at_us=to_us(now),
        state="candidate" if decision.promote else "refused",
        ranking=bundle.ranking,
        data_start_us=int(times.min()),
        data_end_us=end_us,
        event_count=log.sequences.event_count,
        user_count=len(frame.user_keys),
        item_count=bundle.vocabulary.item_count,
        facts=bundle.facts,
        verdict=decision.plain(),
        manifest_sha256=digest,
        size_bytes=size,
        run_id=run_id,
    )


def _shown(learned: Learned) -> str:
    pairs = sorted(learned.validation.items(), key=lambda pair: -pair[1].figure)
    return ", ".join(f"{name} {found.recall:.3f}/{found.mrr:.3f}" for name, found in pairs)
