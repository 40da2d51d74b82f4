"""Search over the network's settings, judged by validation MRR@20. The only home of Optuna.

Every trial trains on the fit part alone, from the start, and is told off after each epoch against
the others (median pruning). The study is a file that grows: stopped anywhere, the same search goes
on from there. The test window is not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.config import Settings
from recsys.errors import NotEnoughDataError
from recsys.models.bundle import Bundle
from recsys.models.lstm.scoring import NetworkScorer
from recsys.models.lstm.training_loop import Progress, start_cold, train_network
from recsys.training.blend_search import K, calibrate, candidates_of
from recsys.training.dataset import prepare
from recsys.training.metrics import reciprocal_rank
from recsys.training.training_log import Log

if TYPE_CHECKING:
    import optuna

LAYERS = (1, 2)
WIDTHS = (64, 96, 128, 192, 256)
LENGTHS = (20, 50, 100)
NEGATIVES = (512, 1_024, 2_048)


@dataclass(frozen=True)
class Tuned:
    """The best settings found: section -> key -> value, and the figure they reached."""

    best: dict[str, dict[str, Any]]
    mrr: float
    trials: int  # finished ones, those of earlier runs included
    pruned: int


def tune(
    log: Log,
    settings: Settings,
    cut_us: int,
    folder: Path,
    trials: int,
    timeout_seconds: float | None,
    on_progress: Callable[[int, Progress], None] = lambda number, progress: None,
    on_trial: Callable[[int, float | None, dict[str, Any]], None] = lambda number, mrr, found: None,
) -> Tuned:
    """Run `trials` more trials on the events before `cut_us`; `timeout_seconds` starts no more.

    The current settings are the first trial, so that the result is never worse than they are on
    validation. Raises NotEnoughDataError where validation has too few positions to judge by.
    """
    # It takes a third of a second to load, which no other command has to wait for.
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lesson = prepare(log, settings, cut_us)
    if not lesson.enough:
        raise NotEnoughDataError(f"{len(lesson.positions)} validation positions are too few")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    # A study is of one log and one start: with others it would compare what cannot be compared.
    digest = hashlib.sha256(lesson.train.items.tobytes())
    digest.update(repr(_current(settings)).encode())
    name = digest.hexdigest()[:16]
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "tune.journal"))),
        study_name=name,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=settings.training.seed, multivariate=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
    )
    if not study.trials:
        study.enqueue_trial(_current(settings))

    def objective(trial: optuna.Trial) -> float:
        found = _suggest(trial, _current(settings))
        chosen = with_tuned(settings, found)
        part = prepare(log, chosen, cut_us)
        trainer = part.trainer()
        start_cold(trainer, part.fit)
        bundle = part.bundle("tune", trainer)
        glance = part.glance()
        best = 0.0

        def validate(_scorer: NetworkScorer) -> float:
            nonlocal best
            candidates = candidates_of(bundle, glance, ())
            blend, _ = calibrate(candidates)
            mrr = float(reciprocal_rank(candidates.ranks(blend), K).mean())
            best = max(best, mrr)
            step = trial.user_attrs.get("epochs", 0)
            trial.set_user_attr("epochs", step + 1)
            trial.report(mrr, step)
            if trial.should_prune():
                raise optuna.TrialPruned
            return mrr

        train_network(
            part.fit,
            part.weights[part.before],
            trainer,
            validate,
            lambda progress: on_progress(trial.number, progress),
        )
        return best

    def tell(_study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        on_trial(trial.number, trial.value, dict(trial.params))

    study.optimize(objective, n_trials=trials, timeout=timeout_seconds, callbacks=[tell])
    states = [trial.state for trial in study.trials]
    return Tuned(
        best=_sections(study.best_params),
        mrr=float(study.best_value),
        trials=states.count(optuna.trial.TrialState.COMPLETE),
        pruned=states.count(optuna.trial.TrialState.PRUNED),
    )


SECTION_OF = {
    "width": "model",
    "layers": "model",
    "embedding_dropout": "model",
    "dropout": "model",
    "learning_rate": "training",
    "negatives": "training",
    "max_length": "sequences",
}


def with_tuned(settings: Settings, found: dict[str, dict[str, Any]]) -> Settings:
    """`settings` with the values of `found` (section -> key -> value)."""
    sections = {
        name: getattr(settings, name).model_copy(update=values) for name, values in found.items()
    }
    return settings.model_copy(update=sections)


def adoption(settings: Settings, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`found` with what is configured beside each value: for `adopted` to tell a later change."""
    return {
        section: {
            key: {"value": value, "configured": getattr(getattr(settings, section), key)}
            for key, value in values.items()
        }
        for section, values in found.items()
    }


def to_adopt(
    settings: Settings, tuned: dict[str, dict[str, Any]] | None, champion: Bundle | None
) -> dict[str, dict[str, Any]]:
    """The adoption that a training goes by: of `tuned` where given, else the champion's."""
    if tuned is not None:
        return adoption(settings, tuned)
    return (champion.facts.get("adopted") or {}) if champion is not None else {}


def adopted(settings: Settings, given: dict[str, dict[str, Any]]) -> Settings:
    """`settings` with the values of an `adoption`, but for keys that were configured anew since."""
    kept: dict[str, dict[str, Any]] = {}
    for section, values in given.items():
        for key, one in values.items():
            if getattr(getattr(settings, section, None), key, None) == one["configured"]:
                kept.setdefault(section, {})[key] = one["value"]
    return with_tuned(settings, kept)


def _current(settings: Settings) -> dict[str, Any]:
    return {key: getattr(getattr(settings, part), key) for key, part in SECTION_OF.items()}


def _suggest(trial: optuna.Trial, current: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A trial's values; the ranges reach out to the current ones where those lie outside."""

    def chosen(key: str, choices: tuple[int, ...]) -> Any:
        return trial.suggest_categorical(key, sorted({*choices, current[key]}))

    def between(key: str, low: float, high: float, log: bool = False) -> float:
        low, high = min(low, current[key]), max(high, current[key])
        return trial.suggest_float(key, low, high, log=log)

    return _sections(
        {
            "width": chosen("width", WIDTHS),
            "layers": chosen("layers", LAYERS),
            "embedding_dropout": between("embedding_dropout", 0.1, 0.75),
            "dropout": between("dropout", 0.0, 0.5),
            "learning_rate": between("learning_rate", 1e-3, 2e-2, log=True),
            "negatives": chosen("negatives", NEGATIVES),
            "max_length": chosen("max_length", LENGTHS),
        }
    )


def _sections(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        rounded = float(f"{value:.4g}") if isinstance(value, float) else value
        found.setdefault(SECTION_OF[key], {})[key] = rounded
    return found
