"""Train the network before the test window, and choose how it is blended and which ranking serves.

One training in time:

    |------ fit ------|-- validation --|---- test window ----|
    |            training             cut

The network stops on validation; there its blend with the rankers and the ranking to serve are
chosen. Then fit and validation are learned together, from the start or, from a champion's weights,
in a short pass. Then every system ranks the test window, which none has seen
(`recsys.training.evaluate`). Only after the verdict may the window itself be learned
(`recsys.training.window_pass`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from recsys.config import Settings
from recsys.events.sequences import Sequences
from recsys.events.times import DAY_US, to_us
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN, Vocabulary
from recsys.models.blend import BLEND, LIVE, NO_COPIES, Blend
from recsys.models.bundle import Bundle
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.checkpoint import TrainingCheckpoint
from recsys.models.lstm.initial_weights import start_cold, start_from
from recsys.models.lstm.network import as_module
from recsys.models.lstm.trainer import WARM_RATE, Schedule, Trainer, final_pass, train_network
from recsys.models.rankers import BLENDABLE
from recsys.models.version_facts import LearningCurve
from recsys.tracing import traced
from recsys.training.blend_search import (
    ValidationMetrics,
    calibrate,
    candidates_of,
    choose_blend,
    ranker_metrics,
    tune_ranker,
)
from recsys.training.dataset import Dataset, make_dataset
from recsys.training.event_log import EventLog
from recsys.training.item_content import with_content
from recsys.training.live_blend import choose_live_blend
from recsys.training.replay import delay_of
from recsys.training.report import ENOUGH_POSITIONS
from recsys.training.run import Run

ANYWHERE = {  # of [training]: they change no result
    "processes",
    "engine",
    "engine_address",
    "ranks",
    "rank_cpus",
    "rank_gpus",
    "join_timeout_seconds",
    "worker_timeout_seconds",
}


@dataclass(frozen=True)
class FittedModel:
    """A trained bundle, its learning curve, and how each ranking did on validation."""

    bundle: Bundle
    curve: LearningCurve
    validation: dict[str, ValidationMetrics]  # by ranking; empty where validation was too small
    validation_positions: int  # of which a choice takes ENOUGH_POSITIONS
    cut_us: int  # the test window's start
    warm: bool  # whether it started from a champion's weights

    def summary(self) -> str:
        """The ranking to serve and, the best first, each one's validation metrics."""
        count = f"{self.validation_positions:,} validation positions"
        if not self.validation:
            few = f"{count}, too few to choose by; {ENOUGH_POSITIONS} are needed"
            return f"{self.bundle.ranking} ({few})"
        pairs = sorted(self.validation.items(), key=lambda pair: -pair[1].objective)
        each = ", ".join(f"{name} {found.recall:.3f}/{found.mrr:.3f}" for name, found in pairs)
        return f"{self.bundle.ranking} (recall@20/MRR@20 of each on {count}: {each})"


@traced("learn")
def fit_model(
    log: EventLog,
    settings: Settings,
    version: str,
    cut_us: int,
    run: Run,
    champion: Bundle | None = None,
    checkpoint_folder: Path | None = None,
) -> FittedModel:
    """Train on the events before `cut_us`; nothing at or after it is looked at.

    A `champion` gives the weights to start from, where they fit the network. Finished epochs are kept
    in `checkpoint_folder`, from which a training that was killed resumes. Raises NotEnoughDataError
    where too few events are left, TrainingError where the loss is no number any more.
    """
    dataset = make_dataset(log, settings, cut_us, champion)
    trainer = dataset.trainer()
    start = champion
    if champion is None or not start_warm(trainer, champion, dataset.vocabulary, dataset.fit):
        start = None
        start_cold(trainer, dataset.fit)
    bundle = dataset.bundle(version, trainer)
    checkpoints = _Checkpoints(checkpoint_folder, _fingerprint(dataset, warm=start is not None))
    curve = None
    if start is None:
        curve = _fit_with_validation(dataset, trainer, bundle, run, checkpoints.of("fit"))
    else:
        _catch_up(dataset, trainer, start, run)
    bundle, validation = _choose_rankings(bundle, dataset, start)
    if validation:
        best = max(validation, key=lambda name: validation[name].objective)
    else:  # what was chosen once stays; nothing was: counting serves until a network shows itself
        best = start.ranking if start is not None else BLENDABLE[0]
    if curve is None or (settings.training.refit and not dataset.in_fit.all()):
        epochs = settings.training.warm_epochs if curve is None else curve.best_epoch
        trainer, again = _refit(dataset, start, epochs, run, checkpoints.of("refit"))
        curve = curve or again
    else:
        epochs = settings.training.final_epochs
        final_pass(dataset.train, dataset.weights, trainer, epochs, run.on_progress)
    checkpoints.remove()
    bundle = replace(
        bundle,
        network=trainer.network,
        rankers=dataset.rankers(dataset.train, bundle.rankers),
        ranking=best,
    )
    bundle = with_content(bundle, log.contents, dataset.train, settings.training.seed)
    count = len(dataset.validation)
    return FittedModel(bundle, curve, validation, count, cut_us, warm=start is not None)


def warm_champion(settings: Settings, champion: Bundle | None, now: datetime) -> Bundle | None:
    """The champion whose weights a training starts from; None for a cold start.

    A cold start is due `training.cold_start_days` after the last one.
    """
    if champion is None or not settings.training.warm_start:
        return None
    due_us = champion.facts.cold_started_us + settings.training.cold_start_days * DAY_US
    return champion if to_us(now) < due_us else None


def start_warm(
    trainer: Trainer, champion: Bundle, vocabulary: Vocabulary, sequences: Sequences
) -> bool:
    """Give the trainer the champion's weights; False where their shapes do not fit."""
    if champion.network is None:
        return False
    rows = np.concatenate(
        (np.arange(FIRST_ITEM), champion.vocabulary.encode(vocabulary.item_ids))
    ).astype(np.int64)
    rows[FIRST_ITEM:][rows[FIRST_ITEM:] == UNKNOWN] = -1
    return start_from(trainer, as_module(champion.network), rows, sequences)


def _fit_with_validation(
    dataset: Dataset,
    trainer: Trainer,
    bundle: Bundle,
    run: Run,
    checkpoint: TrainingCheckpoint | None,
) -> LearningCurve:
    """Train on the fit part until validation stops improving."""
    sample = dataset.epoch_sample()

    def validate(_scorer: BatchScorer) -> float:
        return calibrate(candidates_of(bundle, sample, ())).objective

    return train_network(
        dataset.fit,
        dataset.fit_weights,
        trainer,
        validate if dataset.can_validate else None,
        run.on_progress,
        checkpoint=checkpoint,
    )


def _catch_up(dataset: Dataset, trainer: Trainer, champion: Bundle, run: Run) -> None:
    """Train the champion's weights one epoch on the fit part, where it holds newer events.

    Where it holds none the weights are ready for validation as they are.
    """
    if (dataset.fit.timestamps_us > champion.facts.data_end_us).any():
        final_pass(dataset.fit, dataset.fit_weights, trainer, 1, run.on_progress)


def _refit(
    dataset: Dataset,
    champion: Bundle | None,
    epochs: int,
    run: Run,
    checkpoint: TrainingCheckpoint | None,
) -> tuple[Trainer, LearningCurve]:
    """Train anew on fit part and validation together, from the `champion`'s weights where given."""
    trainer = dataset.trainer()
    if champion is None:
        start_cold(trainer, dataset.train)
    else:
        start_warm(trainer, champion, dataset.vocabulary, dataset.train)
    curve = train_network(
        dataset.train,
        dataset.weights,
        trainer,
        None,
        run.on_progress,
        schedule=Schedule("refit", epochs, 1.0 if champion is None else WARM_RATE),
        checkpoint=checkpoint,
    )
    return trainer, curve


def _choose_rankings(
    bundle: Bundle, dataset: Dataset, champion: Bundle | None
) -> tuple[Bundle, dict[str, ValidationMetrics]]:
    """`bundle` with its rankers tuned and blends chosen, and each ranking's validation metrics.

    A warm start keeps what was chosen for the `champion`'s rankers, and all its choices where validation is too
    small; a cold one then gives all weight to the strongest ranker, since the network has shown
    nothing yet, and there are no metrics.
    """
    network = bundle.network_name
    assert network is not None
    if not dataset.can_validate:
        blends = dict(champion.blends) if champion else {}
        counting = Blend({network: 0.0, BLENDABLE[0]: 1.0}, gate_shift=NO_COPIES)
        blends = {network: Blend({network: 1.0}), BLEND: counting, **blends}
        return replace(bundle, blends=blends), {}
    rankers = {
        name: tune_ranker(ranker, dataset.validation, bundle)
        if champion is None
        else ranker.tuned_like(champion.rankers.get(name))
        for name, ranker in bundle.rankers.items()
    }
    bundle = replace(bundle, rankers=rankers)
    candidates = candidates_of(bundle, dataset.validation, BLENDABLE)
    alone = calibrate(candidates).blend
    blend = choose_blend(candidates, alone).blend
    bundle = replace(bundle, blends={network: alone, BLEND: blend})
    metrics = {
        name: ValidationMetrics.of(candidates.ranks(each)) for name, each in bundle.blends.items()
    }
    metrics |= {n: ranker_metrics(r, dataset.validation, bundle) for n, r in rankers.items()}
    settings = dataset.settings
    if settings.serving.live_seconds > 0:
        contents = dataset.history.contents
        bundle = with_content(bundle, contents, dataset.fit, settings.training.seed)
        live = choose_live_blend(bundle, dataset, blend, delay_of(settings))
        if live is not None:
            bundle = replace(bundle, blends={**bundle.blends, LIVE: live.blend})
    return bundle, metrics


@dataclass(frozen=True)
class _Checkpoints:
    """The checkpoint file of each stage of one training, told apart by `key`."""

    folder: Path | None  # None = nothing is kept
    key: str

    def of(self, stage: str) -> TrainingCheckpoint | None:
        return TrainingCheckpoint(self.folder / f"{stage}.bin", self.key) if self.folder else None

    def remove(self) -> None:
        for stage in ("fit", "refit"):
            if (written := self.of(stage)) is not None:
                written.remove()


def _fingerprint(dataset: Dataset, warm: bool) -> str:
    """A hash of a training's data and settings, so that only the same training is resumed."""
    digest = hashlib.sha256()
    train, settings = dataset.train, dataset.settings
    for array in (train.offsets, train.items, train.timestamps_us, train.event_types):
        digest.update(np.ascontiguousarray(array).data)
    for section in (settings.sequences, settings.model, settings.training, settings.evaluation):
        digest.update(section.model_dump_json(exclude=ANYWHERE).encode())
    digest.update(f"{len(dataset.vocabulary)} {warm}".encode())
    return digest.hexdigest()
