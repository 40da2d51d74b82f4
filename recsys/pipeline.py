"""START HERE: the whole system, one function a workflow.

    events in a database -> event frame -> per-user sequences -> time split -> batches -> LSTM
    -> scores -> evaluation report -> gate -> registry -> served recommendation -> click -> event

Read `train` for the first half and `recsys/serving/answering.py` for the second, which needs no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys.commands import deployments
from recsys.config import Settings
from recsys.distributed.engine import opened_engine
from recsys.errors import ModelFileError, NotEnoughDataError
from recsys.events.export_files import writing
from recsys.events.frame import EventFrame
from recsys.events.times import to_us
from recsys.events.vocabulary import Vocabulary
from recsys.ingest import gorse_exports
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.ingest.gorse_exports import read_gorse
from recsys.ingest.item_files import ItemOptions, read_items
from recsys.ingest.raw_rows import Rejection
from recsys.ingest.row_owners import OwnerColumns
from recsys.ingest.user_files import UserOptions, read_users, written
from recsys.models.lstm.network import as_module
from recsys.models.lstm.onnx_export import export_onnx
from recsys.models.version_facts import Verdict, VersionFacts
from recsys.progress import OnRows, Say, quiet
from recsys.registry import keep_version, load_champion, new_version, read_version
from recsys.sequence_store.store import ReadRanges
from recsys.sequence_store.training_window import training_frame
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    attribute_rows,
    event_rows,
    item_rows,
    rejected_rows,
    version_rows,
)
from recsys.storage.entities.audit_rows import CLI, Actor
from recsys.storage.entities.event_import import ImportSummary, import_file, replay
from recsys.storage.entities.gorse_catalogue import import_gorse_catalogue
from recsys.storage.entities.import_rows import OpenImport
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.events_source import open_events_source
from recsys.tracing import traced
from recsys.training.compare import ComparisonData, NetworkComparison, compare_networks
from recsys.training.data_checks import check_before_training
from recsys.training.dry_run import check_log
from recsys.training.evaluate import (
    Evaluation,
    VersionEvaluation,
    evaluate_on_window,
    evaluate_version,
)
from recsys.training.event_log import make_log, read_log, window_start
from recsys.training.fit import fit_model, warm_champion
from recsys.training.gate import judge
from recsys.training.hyperparameters import (
    SearchBudget,
    SettingValues,
    TrialResult,
    TuningResult,
    adoption,
    search_settings,
    with_adopted,
)
from recsys.training.item_content import content_summary
from recsys.training.publish import TrainingResult, write_files
from recsys.training.report import Scorer
from recsys.training.run import Run
from recsys.training.window_pass import learn_window


def import_events(
    database: Database,
    path: Path,
    options: ReadOptions,
    now: datetime,
    on_progress: OnRows = quiet,
    actor: Actor = CLI,
    known_types: Collection[str] = (),
) -> ImportSummary:
    """A file -> events. Repeating it adds nothing; bad rows go to the quarantine.

    The import is numbered; `commands.undo_import` takes it back. `known_types`: event types beside
    those of the log, among which a default type that was misspelt is looked for.
    """
    record = OpenImport(path.name, to_us(now), options.plain(), actor.name)
    others: dict[str, int] = {}  # rows of users and items, by what became of them
    with database.connect() as connection:
        known = event_rows.event_types(connection).union(known_types)
    if options.format == gorse_exports.FORMAT:
        found = read_gorse(path, record.started_at_us)
        others = import_gorse_catalogue(database, found, path.name, record.started_at_us)
    chunks = read_events(path, options, record.started_at_us, known_types=known)
    done = import_file(database, chunks, record, on_progress)
    return replace(done, notes={**done.notes, **others})


def import_items(
    database: Database, path: Path, options: ItemOptions, now: datetime
) -> dict[str, int]:
    """A file of metadata -> items; what it has no column for stays. Bad rows go to the quarantine."""
    chunks = read_items(path, options)
    read = stored = rejected = new = 0
    for chunk in chunks:
        read, stored = read + chunk.read, stored + len(chunk.items)
        with database.begin() as connection:
            rejected += rejected_rows.add_rejections(
                connection, path.name, chunk.rejections, to_us(now), OwnerColumns()
            )
            new += item_rows.put_items(connection, chunk.items, to_us(now))
    return {"read": read, "stored": stored, "new": new, "rejected": rejected}


def import_users(
    database: Database, path: Path, options: UserOptions, now: datetime
) -> dict[str, int]:
    """A file of users' attributes -> attributes; those it has no column for stay. Bad rows go to the
    quarantine, those of users who were erased are skipped.
    """
    done: Counter[str] = Counter(read=0, stored=0, new=0, rejected=0, skipped=0)
    owner = OwnerColumns(user=options.columns.user or "user_id")
    for chunk in read_users(path, options):
        rejections = list(chunk.rejections)
        with database.begin() as connection:
            put = attribute_rows.put_attributes(connection, chunk.users, "update", to_us(now))
            for index, why in put.left_out:
                if why != attribute_rows.ERASED:
                    row = written(chunk.users[index])
                    rejections.append(Rejection(chunk.positions[index], why, row))
            kept = rejected_rows.add_rejections(
                connection, path.name, rejections, to_us(now), owner
            )
        stored = len(chunk.users) - len(put.left_out)
        skipped = chunk.read - stored - kept
        done.update(read=chunk.read, stored=stored, new=put.new, rejected=kept, skipped=skipped)
    return dict(done)


def export_events(settings: Settings, database: Database, path: Path, now: datetime) -> int:
    """All events -> a Parquet, CSV or JSON Lines file, in order of arrival; how many.

    Of an external table in that of its chunks, without users who were erased.
    """
    with writing(path) as write:
        return sum(
            write(batch)
            for batch in open_events_source(settings, database).export_batches(to_us(now))
        )


def check_events(
    settings: Settings,
    database: Database,
    now: datetime,
    path: Path | None = None,
    options: ReadOptions | None = None,
    on_progress: OnRows = quiet,
) -> dict[str, Any]:
    """Dry run of the external table, the service's own, or a file: what is in it, and whether its order
    is worth learning. Nothing is stored.
    """
    return check_log(settings, database, now, path, options, on_progress)


def replay_rejected(
    database: Database,
    options: ReadOptions,
    source: str | None,
    now: datetime,
    known_types: Collection[str] = (),
) -> dict[str, Any]:
    """The quarantine read once more, with other options; rows that become events leave it.

    `known_types`: as `import_events` has them.
    """
    with database.connect() as connection:
        known = event_rows.event_types(connection).union(known_types)
    return replay(database, options, source, to_us(now), known)


@traced("read events")
def events_so_far(
    settings: Settings,
    database: Database,
    now: datetime,
    say: Say = quiet,
    read_ranges: ReadRanges | None = None,
) -> EventFrame:
    """Events that count -> the event frame, through sequence files that are read on, not anew.

    `read_ranges` reads what is new in place of this machine, such as a cluster's tasks.
    """
    return training_frame(settings, database, to_us(now), say, read_ranges)


@dataclass(frozen=True)
class Trained:
    """The version that a training registered, and whether it was promoted."""

    version: str
    promoted: bool
    reason: str  # why it was promoted, or was not
    verdict: Verdict
    evaluation: Evaluation
    facts: VersionFacts


@traced("train")
def train(
    settings: Settings,
    database: Database,
    run: Run,
    *,
    promote: bool = True,
    force: bool = False,
    tuned: SettingValues | None = None,
    extra: Callable[[Vocabulary], Mapping[str, Scorer]] = lambda vocabulary: {},
) -> Trained:
    """Events -> checks -> dataset -> fit -> evaluate -> gate -> learn the window -> write -> publish.

    `tuned` are settings that `tune` found; they stay with the version, and later trainings adopt
    those of the champion, so they are adopted if the gate lets the version through. `extra` gives
    scorers that are shown beside the others and that the gate leaves alone. Raises
    NotEnoughDataError, DataCheckError, TrainingError, StorageUnavailableError; the champion then
    goes on.
    """
    with database.connect() as connection:
        before = version_rows.champion_name(connection)
    files = open_model_files(settings, database)
    champion = load_champion(settings.registry.path, database, run.say, files)
    adopted = adoption(settings, tuned, champion)
    settings = with_adopted(settings, adopted)

    run.on_stage("reading")
    with opened_engine(settings) as engine:
        frame = events_so_far(settings, database, run.now, run.say, engine.read_ranges)
        run.say(f"{len(frame):,} events of {len(frame.user_keys):,} users")
        frame, checks = check_before_training(frame, settings, champion, run.say)
        log = read_log(database, frame, settings)
        cut_us = window_start(log, settings, champion)
        engine.gather_ranks(run.say)

        start = warm_champion(settings, champion, run.now)
        checkpoints = settings.registry.path / ".training"
        run.on_stage("fitting")
        fitted = fit_model(log, settings, new_version(run.now), cut_us, run, start, checkpoints)
        if fitted.warm:
            run.say("started from the champion's weights")
        run.say(f"ranks with: {fitted.summary()}")
        run.say(f"the ranking by itself: {fitted.bundle.repeats.said()}")
        if fitted.bundle.facts.seen is not None:
            run.say(f"answers (exclude_seen = auto): {fitted.bundle.facts.seen.said()}")

        run.on_stage("evaluating")
        others = extra(fitted.bundle.vocabulary)
        evaluation = evaluate_on_window(log, fitted.bundle, champion, cut_us, settings, others)
        run.on_stage("comparing")
        verdict = judge(evaluation, fitted, champion, settings)
        run.say(verdict.reason)
        bundle, window = learn_window(log, fitted, settings, run)
        if log.contents:
            run.say(content_summary(bundle))

    result = TrainingResult(
        settings=settings,
        adopted=adopted,
        log=log,
        user_count=len(frame.user_keys),
        checks=checks,
        champion=champion,
        fitted=fitted,
        evaluation=evaluation,
        verdict=verdict,
        bundle=bundle,
        window=window,
    )
    run.on_stage("publishing")
    row, facts = write_files(result, run)
    keep_version(settings.registry.path, row.version, files)
    promotion: deployments.Promotion = "never"
    if promote:
        promotion = "forced" if force else "by the gate"
    now_us = to_us(run.now)
    done = deployments.publish(database, run.actor, row, promotion, before, now_us, run.fence)
    reason = verdict.reason
    if done == "overtaken":  # `models promote` is there for who knows better
        reason = "another version became champion while it was trained"
        run.say(f"not promoted: {reason}")
    return Trained(row.version, done == "promoted", reason, verdict, evaluation, facts)


def evaluate(
    settings: Settings,
    database: Database,
    now: datetime,
    version: str | None = None,
    frame: EventFrame | None = None,
) -> VersionEvaluation:
    """Any registered version (default: the champion) and every ranker on the same time split, which
    is one of `frame` where the events were read already.

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
    log = make_log(events_so_far(settings, database, now) if frame is None else frame, settings)
    return evaluate_version(log, bundle, row, settings)


def compare(
    settings: Settings, database: Database, run: Run, networks: Sequence[str], seeds: int
) -> NetworkComparison:
    """Train each of `networks` on what came before the test window, with equal budgets, and rank the
    window by all of them, unblended and blended, and by every ranker. Nothing is registered.

    Raises NotEnoughDataError where the window or what precedes it holds too little.
    """
    run.on_stage("reading")
    with opened_engine(settings) as engine:
        frame = events_so_far(settings, database, run.now, run.say, engine.read_ranges)
        log = read_log(database, frame, settings)
        data = ComparisonData(log, None, window_start(log, settings, None))
        engine.gather_ranks(run.say)
        return compare_networks(settings, data, seeds, networks, run)


def tune(
    settings: Settings,
    database: Database,
    run: Run,
    budget: SearchBudget,
    on_trial: Callable[[TrialResult], None] = lambda result: None,
) -> TuningResult:
    """Search for settings that rank validation better; resumes where an earlier search stopped."""
    run.on_stage("reading")
    with opened_engine(settings) as engine:
        frame = events_so_far(settings, database, run.now, run.say, engine.read_ranges)
        log = read_log(database, frame, settings)
        cut_us = window_start(log, settings, None)
        engine.gather_ranks(run.say)
        folder = settings.registry.path / ".tuning"
        return search_settings(log, settings, cut_us, folder, budget, run, on_trial)


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
    return export_onnx(as_module(bundle.network), bundle.repeats.current_may_recur, path)
