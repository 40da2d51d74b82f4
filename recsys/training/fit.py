"""The log before the test window -> a bundle: a trained network, and how it is blended and served.

The way of one training, in time:

    |------ fit ------|-- validation --|---- test window ----|
    |            training             cut

The network stops on validation; there its word is weighed, its blend with the rankers and the
ranking to serve are chosen. Then fit and validation are learned together, from the start or, from
a champion's weights, in a short pass. Then every system ranks the test window, which none has seen
(`recsys.training.evaluate`). Only after the verdict may the window itself be learned
(`recsys.training.final_pass`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recsys.config import Settings
from recsys.models.blend import Blend
from recsys.models.bundle import Bundle
from recsys.models.lstm.checkpoint import TrainingCheckpoint
from recsys.models.lstm.scoring import NetworkScorer
from recsys.models.lstm.trainer import Trainer
from recsys.models.lstm.training_loop import (
    WARM_RATE,
    LearningCurve,
    Progress,
    final_pass,
    start_cold,
    train_network,
)
from recsys.models.rankers import with_choices
from recsys.models.ranking import BLEND, BLENDED, LSTM
from recsys.models.session_knn import SessionKnn
from recsys.tracing import traced
from recsys.training.blend_search import (
    Quality,
    calibrate,
    candidates_of,
    choose_blend,
    choose_session_knn,
    ranker_quality,
)
from recsys.training.dataset import Lesson, prepare
from recsys.training.training_log import Log
from recsys.training.warm_start import catch_up, start_warm

ANYWHERE = {"processes", "worker_timeout_seconds"}  # of [training]: they change no result


@dataclass(frozen=True)
class Learned:
    """What a training gives: the bundle, and what the network's learning looked like."""

    bundle: Bundle
    trainer: Trainer
    curve: LearningCurve
    validation: dict[str, Quality]  # of each ranking; empty where there was too little to choose by
    cut_us: int  # the test window's start
    warm: bool  # whether it started from a champion's weights

    def shown(self) -> str:
        """The ranking to serve and, the best first, what each one came to on validation."""
        if not self.validation:
            return self.bundle.ranking
        pairs = sorted(self.validation.items(), key=lambda pair: -pair[1].figure)
        each = ", ".join(f"{name} {found.recall:.3f}/{found.mrr:.3f}" for name, found in pairs)
        return f"{self.bundle.ranking} (recall@20/MRR@20 of each: {each})"


@traced("learn")
def learn(
    log: Log,
    settings: Settings,
    version: str,
    cut_us: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    champion: Bundle | None = None,
    workplace: Path | None = None,
) -> Learned:
    """Train on the events before `cut_us`; nothing at or after it is looked at.

    With a `champion` its weights are where the training starts, if they fit. Epochs are written
    down in the folder `workplace`, and a training that was killed goes on from there. Raises
    NotEnoughDataError where too little is left, TrainingError where the loss breaks.
    """
    lesson = prepare(log, settings, cut_us, champion)
    trainer = lesson.trainer()
    warm = champion is not None and start_warm(trainer, champion, lesson.vocabulary, lesson.fit)
    if not warm:
        start_cold(trainer, lesson.fit)
    bundle = lesson.bundle(version, trainer)
    key = _fingerprint(lesson, warm)
    if warm:
        assert champion is not None
        catch_up(lesson, trainer, champion, on_progress)
        curve = None
    else:
        curve = _fit(lesson, trainer, bundle, on_progress, _checkpoint(workplace, "fit", key))
    bundle, validation = _weigh(bundle, lesson, champion if warm else None)
    best = max(validation, key=lambda name: validation[name].figure) if validation else BLEND
    if curve is None or (settings.training.refit and not lesson.before.all()):
        trainer = lesson.trainer()
        if curve is None:
            assert champion is not None
            start_warm(trainer, champion, lesson.vocabulary, lesson.train)
        else:
            start_cold(trainer, lesson.train)
        again = train_network(
            lesson.train,
            lesson.weights,
            trainer,
            None,
            on_progress,
            stage="refit",
            epochs=settings.training.warm_epochs if curve is None else curve.best_epoch,
            rate_share=WARM_RATE if curve is None else 1.0,
            checkpoint=_checkpoint(workplace, "refit", key),
        )
        curve = curve or again
    else:
        epochs = settings.training.final_epochs
        final_pass(lesson.train, lesson.weights, trainer, epochs, on_progress)
    for stage in ("fit", "refit"):
        if (written := _checkpoint(workplace, stage, key)) is not None:
            written.remove()
    bundle = replace(
        bundle,
        network=trainer.network,
        rankers=lesson.rankers(lesson.train, bundle.rankers),
        ranking=best,
    )
    return Learned(bundle, trainer, curve, validation, cut_us, warm)


def _fit(
    lesson: Lesson,
    trainer: Trainer,
    bundle: Bundle,
    on_progress: Callable[[Progress], None],
    checkpoint: TrainingCheckpoint | None,
) -> LearningCurve:
    """Train on the fit part, stopped by validation."""
    glance = lesson.glance()

    def validate(_scorer: NetworkScorer) -> float:
        return calibrate(candidates_of(bundle, glance, ()))[1]

    return train_network(
        lesson.fit,
        lesson.fit_weights,
        trainer,
        validate if lesson.enough else None,
        on_progress,
        checkpoint=checkpoint,
    )


def _weigh(
    bundle: Bundle, lesson: Lesson, champion: Bundle | None
) -> tuple[Bundle, dict[str, Quality]]:
    """`bundle` with its session kNN tuned and its blends chosen; each ranking's validation quality.

    A warm start keeps the `champion`'s session kNN, and all its choices where there are too few
    positions; a cold one then keeps the plain ones, and there is no quality to speak of.
    """
    if not lesson.enough:
        blends = dict(champion.blends) if champion else {}
        blends = {LSTM: Blend({LSTM: 1.0}), BLEND: Blend({LSTM: 1.0}), **blends}
        return replace(bundle, blends=blends), {}
    rankers = dict(bundle.rankers)
    knn = rankers["session_knn"]
    assert isinstance(knn, SessionKnn)
    if champion is None:
        rankers["session_knn"] = choose_session_knn(knn, lesson.positions, bundle)
    else:
        rankers["session_knn"] = with_choices(knn, champion.rankers)
    bundle = replace(bundle, rankers=rankers)
    candidates = candidates_of(bundle, lesson.positions, BLENDED)
    alone, _ = calibrate(candidates)
    blend, _ = choose_blend(candidates, alone)
    bundle = replace(bundle, blends={LSTM: alone, BLEND: blend})
    found = {name: Quality.of(candidates.ranks(each)) for name, each in bundle.blends.items()}
    found |= {n: ranker_quality(r, lesson.positions, bundle) for n, r in rankers.items()}
    return bundle, found


def _fingerprint(lesson: Lesson, warm: bool) -> str:
    """Names a training by its data and settings, so that only the same one is gone on with."""
    digest = hashlib.sha256()
    train, settings = lesson.train, lesson.settings
    for array in (train.offsets, train.items, train.timestamps_us, train.event_types):
        digest.update(np.ascontiguousarray(array).data)
    for section in (settings.sequences, settings.model, settings.training, settings.evaluation):
        digest.update(section.model_dump_json(exclude=ANYWHERE).encode())
    digest.update(f"{len(lesson.vocabulary)} {warm}".encode())
    return digest.hexdigest()


def _checkpoint(workplace: Path | None, stage: str, key: str) -> TrainingCheckpoint | None:
    return None if workplace is None else TrainingCheckpoint(workplace / f"{stage}.bin", key)
