"""bench train: events a second of the training loop, beside what the machine multiplies.

Legend: D width, N negatives, V catalogue.

An event costs at least, forward and backward (three products where forward has one):

    LSTM      3 * 2 * 8 D^2      input and hidden state to four gates
    softmax   3 * 2 * N D        N negatives; V in the full softmax
    copying   3 * 2 * 2 * 64 D   query and key

multiplications and additions. Divided by the rate of the machine's own large products, measured in
the same run and precision, that is the share of the limit; the rest goes to exponentials, rows and
overhead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recsys.config import Settings
from recsys.events.repeat_policy import RepeatPolicy, learn_repeat_policy
from recsys.events.sequences import Sequences
from recsys.events.time_split import cut_for_share, events_before
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.checkpoint import Progress
from recsys.models.lstm.initial_weights import start_cold
from recsys.models.lstm.optimizer import gemm_gflops
from recsys.models.lstm.trainer import Schedule, Trainer, train_network
from recsys.models.lstm.weights import KEY_WIDTH
from recsys.models.version_facts import VersionFacts
from recsys.training.dataset import make_dataset
from recsys.training.evaluate import scorer_of, window_positions
from recsys.training.event_log import EventLog
from recsys.training.fit import fit_model
from recsys.training.report import difference, rank_positions, recall, reciprocal_rank, rounded
from recsys.training.run import Run, peak_mib

MEAN_LENGTH = 5.0  # events of a simulated session, as bol_clicks has
ZIPF = 0.8
K = 20


def simulated_sequences(events: int, items: int, seed: int) -> Sequences:
    """Sessions of geometric length over a catalogue of Zipf popularity; order means nothing."""
    rng = np.random.default_rng(seed)
    lengths = 1 + rng.geometric(1.0 / (MEAN_LENGTH - 1.0), int(events / MEAN_LENGTH) + 1)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), events)) + 1]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    count = int(offsets[-1])
    weights = np.arange(1, items + 1) ** -ZIPF
    cumulative = np.cumsum(weights) / weights.sum()
    drawn = np.minimum(np.searchsorted(cumulative, rng.random(count)), items - 1)
    starts = np.zeros(count, np.bool_)
    starts[offsets[:-1]] = True
    return Sequences(
        offsets=offsets,
        items=(drawn + FIRST_ITEM).astype(np.int32),
        event_types=np.ones(count, np.int16),
        timestamps_us=np.arange(count, dtype=np.int64) * 1_000_000,
        session_starts=starts,
        keys=[""] * len(lengths),
    )


def run_training(
    settings: Settings,
    sizes: Sequence[int],
    events: int,
    epochs: int,
    on_progress: Callable[[Progress], None],
) -> dict[str, Any]:
    """The loop on simulated sequences of each catalogue size; the first size's figures on top."""
    runs = []
    for items in sizes:
        sequences = simulated_sequences(events, items, settings.training.seed)
        runs.append(_timed(settings, sequences, items + FIRST_ITEM, None, epochs, on_progress))
    return {**runs[0], "runs": runs}


def run_on_log(
    settings: Settings, log: EventLog, epochs: int, on_progress: Callable[[Progress], None]
) -> dict[str, Any]:
    """The loop on all events of a log."""
    dataset = make_dataset(log, settings, int(log.sequences.timestamps_us.max()) + 1)
    rows = len(dataset.vocabulary)
    return _timed(settings, dataset.train, rows, dataset.repeats, epochs, on_progress)


def run_until(
    settings: Settings,
    log: EventLog,
    cut_us: int,
    goal: tuple[float, float],
    on_progress: Callable[[Progress], None],
) -> dict[str, Any]:
    """Seconds of training on everything before `cut_us` until the bare network reaches `goal`
    (recall@20, MRR@20) on what comes after it; uncalibrated and unblended, ranked after each epoch.
    """
    dataset = make_dataset(log, settings, cut_us)
    started = time.perf_counter()
    trainer = dataset.trainer()
    start_cold(trainer, dataset.train)
    start_seconds = time.perf_counter() - started
    bundle = dataset.bundle("bench", trainer)
    positions = window_positions(log, bundle, cut_us).known
    curve: list[dict[str, float]] = []

    def rank(_scorer: BatchScorer) -> float:
        network = scorer_of(bundle, bundle.network_name)
        ranks = rank_positions(positions, network, len(dataset.vocabulary)).ranks
        figures = {"recall@20": recall(ranks, K), "mrr@20": reciprocal_rank(ranks, K)}
        curve.append({name: round(float(each.mean()), 4) for name, each in figures.items()})
        return float(len(curve))  # never a reason to stop early

    learned = train_network(dataset.train, dataset.weights, trainer, rank, on_progress)
    spent, reached = start_seconds, None
    for record, point in zip(learned.epochs, curve, strict=True):
        spent += record.seconds
        point["seconds"] = round(spent, 2)
        if reached is None and point["recall@20"] >= goal[0] and point["mrr@20"] >= goal[1]:
            reached = round(spent, 2)
    return {
        "goal": {"recall@20": goal[0], "mrr@20": goal[1]},
        "seconds_to_goal": reached,
        "curve": curve,
        "positions": len(positions),
        "events_per_second": round(learned.events_per_second),
    }


def run_warm(
    settings: Settings,
    log: EventLog,
    cut_us: int,
    new_share: float,
    on_progress: Callable[[Progress], None],
) -> dict[str, Any]:
    """A warm start beside a cold one, both on everything before `cut_us` and ranked after it.

    The champion that the warm one starts from has not seen the newest `new_share` of those events.
    Seconds are of the whole training, validation and choosing included.
    """
    history = events_before(log.sequences, cut_us)
    earlier = cut_for_share(history, new_share)
    run = Run(datetime.now(UTC), on_progress=on_progress)
    champion = fit_model(log, settings, "champion", earlier, run).bundle
    champion = replace(champion, facts=VersionFacts(data_end_us=earlier - 1))
    found: dict[str, Any] = {}
    ranks = {}
    for name, start in (("cold", None), ("warm", champion)):
        started = time.perf_counter()
        fitted = fit_model(log, settings, name, cut_us, run, start)
        seconds = time.perf_counter() - started
        assert fitted.warm == (start is not None)
        positions = window_positions(log, fitted.bundle, cut_us).known
        rows = len(fitted.bundle.vocabulary)
        ranks[name] = rank_positions(positions, scorer_of(fitted.bundle), rows).ranks
        found[name] = {
            "seconds": round(seconds, 2),
            "recall@20": round(float(recall(ranks[name], K).mean()), 4),
            "mrr@20": round(float(reciprocal_rank(ranks[name], K).mean()), 4),
        }
    versus = difference(
        ranks["warm"],
        ranks["cold"],
        positions.owners,
        settings.evaluation.bootstrap_draws,
        settings.training.seed,
    )
    return {
        **found,
        "time_ratio": round(found["warm"]["seconds"] / found["cold"]["seconds"], 3),
        "warm_minus_cold": rounded(versus),
        "new_share": new_share,
        "positions": len(positions),
    }


def _timed(
    settings: Settings,
    sequences: Sequences,
    rows: int,
    repeats: RepeatPolicy | None,
    epochs: int,
    on_progress: Callable[[Progress], None],
) -> dict[str, Any]:
    policy = repeats or learn_repeat_policy(sequences)
    trainer = Trainer(
        rows, 2, settings.sequences.max_length, settings.model, settings.training, policy
    )
    started = time.perf_counter()
    start_cold(trainer, sequences)
    start_seconds = time.perf_counter() - started
    weights = np.ones(sequences.event_count, np.float32)
    before = gemm_gflops(trainer.product)
    curve = train_network(
        sequences, weights, trainer, None, on_progress, schedule=Schedule(epochs=epochs)
    )
    gflops = (before + gemm_gflops(trainer.product)) / 2
    width, items = settings.model.width, rows - FIRST_ITEM
    full = items <= settings.training.full_softmax_items
    negatives = items if full else settings.training.negatives
    products = 8 * width**2 * settings.model.layers + negatives * width + 2 * KEY_WIDTH * width
    limit = gflops * 1e9 / (3 * 2 * products)
    speeds = [record.events_per_second for record in curve.epochs]
    return {
        "events_per_second": round(curve.events_per_second),
        "best_epoch_events_per_second": round(max(speeds)),
        "gemm_gflops": round(gflops, 1),
        "limit_events_per_second": round(limit),
        "share_of_limit": round(curve.events_per_second / limit, 3),
        "peak_mib": peak_mib(),
        "items": items,
        "events": sequences.event_count,
        "width": width,
        "negatives": negatives,
        "precision": str(trainer.product).removeprefix("torch."),
        "start_seconds": round(start_seconds, 2),
        "seconds": round(curve.seconds, 2),
    }
