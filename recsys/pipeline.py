"""START HERE: the whole system, one function a workflow.

    events in a database -> event frame -> per-user sequences -> time split -> batches -> LSTM
    -> scores -> evaluation report -> gate -> registry -> served recommendation -> click -> event

Read `train` for the first half and `recommend` for the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys.commands import deployments
from recsys.config import Settings
from recsys.errors import ModelFileError, NotEnoughDataError
from recsys.events.export_files import writing
from recsys.events.frame import EventFrame
from recsys.events.times import to_us
from recsys.events.vocabulary import Vocabulary
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.ingest.item_files import ItemMap, ItemOptions, read_items
from recsys.models.lstm.onnx_export import export_onnx
from recsys.models.lstm.training_loop import Progress
from recsys.registry import keep_version, load_champion, new_version, read_version
from recsys.sequence_store.store import ReadRanges
from recsys.sequence_store.training_window import open_store, training_frame, update_store
from recsys.serving.all_users import ANSWERS, answer_rows, users_of
from recsys.serving.answers import Answer, Request
from recsys.serving.candidates import rank_candidates
from recsys.serving.context import read_context
from recsys.serving.explain import explain
from recsys.serving.recommender import Recommender
from recsys.serving.top_k import make_answer, take_top_k
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import item_rows, rejected_rows, version_rows
from recsys.storage.entities.audit_rows import CLI, Actor
from recsys.storage.entities.event_import import ImportSummary, import_chunks, replay
from recsys.storage.entities.model_files import open_model_files
from recsys.storage.entities.stamps import Stamps
from recsys.storage.log_reading import export_batches, frame_since
from recsys.tracing import traced
from recsys.training.compare import Inputs, compare_networks
from recsys.training.dry_run import check_log
from recsys.training.evaluate import (
    Evaluated,
    Trial,
    evaluate_version,
    judge,
    run_trial,
    window_positions,
)
from recsys.training.final_pass import learn_window
from recsys.training.fit import learn
from recsys.training.gate import Verdict
from recsys.training.hyperparameters import Tuned, adopted, to_adopt
from recsys.training.hyperparameters import tune as search
from recsys.training.publish import Training, write_files
from recsys.training.report import Scorer
from recsys.training.training_checks import check_before_training
from recsys.training.training_log import make_log, read_log, window_start
from recsys.training.warm_start import warm_champion

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
        read, stored = read + chunk.read, stored + len(chunk.items)
        with database.begin() as connection:
            rejected += rejected_rows.add_rejections(
                connection, path.name, chunk.rejections, to_us(now)
            )
            new += item_rows.put_items(connection, chunk.items, to_us(now))
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
    return replay(database, options, source, to_us(now))


@traced("read events")
def events_so_far(
    settings: Settings, database: Database, now: datetime, say: Say = lambda line: None
) -> EventFrame:
    """Events that count -> the event frame, through sequence files that are read on, not anew."""
    return training_frame(settings, database, to_us(now), say)


def bring_up_to_date(
    settings: Settings, database: Database, read_ranges: ReadRanges, say: Say = lambda line: None
) -> None:
    """Read new events into the sequence files by `read_ranges`, such as a cluster's tasks."""
    update_store(open_store(settings, database, read_ranges=read_ranges), database, say)


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
    actor: Actor = CLI,
    run_id: int | None = None,
    tuned: dict[str, dict[str, Any]] | None = None,
    fence: Callable[[Connection], None] = lambda connection: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: Say = lambda line: None,
    extra: Callable[[Vocabulary], dict[str, Scorer]] = lambda vocabulary: {},
) -> Trained:
    """Events -> checks -> sequences -> model -> evaluation -> candidate -> gate -> champion.

    `tuned` are settings that `tune` found; they stay with the version, and trainings go on with those
    of the champion, so they are adopted if the gate lets the version through. `fence` is called in the
    transaction that publishes, and may refuse. `extra` gives scorers that are shown beside the others
    and judged by nobody. Raises NotEnoughDataError, DataCheckError, TrainingError,
    StorageUnavailableError; the champion then goes on.
    """
    with database.connect() as connection:
        before = version_rows.champion_name(connection)
    files = open_model_files(settings, database)
    champion = load_champion(settings.registry.path, database, say, files)
    taken_on = to_adopt(settings, tuned, champion)
    settings = adopted(settings, taken_on)

    frame = events_so_far(settings, database, now, say)
    say(f"{len(frame):,} events of {len(frame.user_keys):,} users")
    checks = check_before_training(frame, settings, champion, say)
    log = read_log(database, frame, settings)
    cut_us = window_start(log, settings, champion)

    learned = learn(
        log,
        settings,
        new_version(now),
        cut_us,
        on_progress,
        champion=warm_champion(settings, champion, now),
        workplace=settings.registry.path / ".training",
    )
    if learned.warm:
        say("started from the champion's weights")
    say(f"ranks with: {learned.shown()}")

    others = extra(learned.bundle.vocabulary)
    trial = run_trial(log, learned.bundle, champion, cut_us, settings, others)
    decision = judge(trial, learned.bundle, champion, settings)
    say(decision.reason)

    bundle, window = learned.bundle, {"learned": False}
    if settings.promotion.learn_window and len(trial.positions):
        positions = window_positions(log, learned.bundle, cut_us)
        bundle, window = learn_window(log, learned, positions, settings, on_progress)

    training = Training(
        now=now,
        settings=settings,
        adopted=taken_on,
        log=log,
        user_count=len(frame.user_keys),
        checks=checks,
        champion=champion,
        learned=learned,
        trial=trial,
        verdict=decision,
        bundle=bundle,
        window=window,
    )
    row = write_files(training, training.facts(), run_id)
    keep_version(settings.registry.path, row.version, files)
    promotion: deployments.Promotion = "never"
    if promote:
        promotion = "forced" if force else "by the gate"
    done = deployments.publish(database, actor, row, promotion, before, to_us(now), fence)
    if done == "overtaken":  # `models promote` is there for who knows better
        say("not promoted: another version became champion meanwhile")
    return Trained(row.version, done == "promoted", decision, trial, row.facts)


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
    return evaluate_version(log, bundle, row, settings)


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
    log = read_log(database, events_so_far(settings, database, now), settings)
    inputs = Inputs(log, None, window_start(log, settings, None))
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
    log = read_log(database, events_so_far(settings, database, now), settings)
    cut_us = window_start(log, settings, None)
    folder = settings.registry.path / ".tuning"
    return search(log, settings, cut_us, folder, trials, timeout_seconds, on_progress, on_trial)


def recommend(
    recommender: Recommender, request: Request, now_us: int, stamps: Stamps | None = None
) -> Answer:
    """Model -> history and filters -> candidates -> top k -> reasons -> answer.

    The one way to an answer, over HTTP, on the command line and for `recommend_all`. Whoever shows
    it logs it (`recsys.serving.answer_log`). `stamps`: as read from the database for this very
    request, where they were. Where the database cannot be reached, the request's own events and the
    last known popular items still give an answer, marked degraded.
    """
    model = recommender.choose_model(request)
    context = read_context(recommender, request, model, now_us, stamps)
    candidates = rank_candidates(recommender, context)
    chosen = take_top_k(recommender, context, candidates)
    reasons = explain(recommender, context, chosen)
    return make_answer(recommender, context, chosen, reasons)


def recommend_all(settings: Settings, database: Database, k: int, path: Path, now: datetime) -> int:
    """The answer to every user with events -> a Parquet file (user_id, item_id, rank, score); its rows.

    Each user gets what `recommend` gives. Raises NotEnoughDataError where no version was promoted
    yet, ModelFileError where none can be loaded, StorageUnavailableError.
    """
    now_us = to_us(now)
    recommender = Recommender(settings, database, time.monotonic)
    with closing(recommender), writing(path) as write:
        recommender.require_model()
        user_ids = users_of(frame_since(settings, database, now_us))
        rows = 0
        for at in range(0, len(user_ids), ANSWERS):
            asked = [
                Request(user_id=user_id, k=k, exclude_seen=settings.serving.exclude_seen)
                for user_id in user_ids[at : at + ANSWERS]
            ]
            rows += write(answer_rows([recommend(recommender, one, now_us) for one in asked]))
        return rows


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
