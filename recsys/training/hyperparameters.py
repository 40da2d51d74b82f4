"""Search the network's settings by validation MRR@20. The only home of Optuna.

Every trial trains on the fit part alone, from the start, and is compared after each epoch with the
others (median pruning). The study is a file that grows: stopped anywhere, the same search resumes
there. The test window is not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.config import Settings
from recsys.errors import NotEnoughDataError
from recsys.models.bundle import Bundle
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.initial_weights import start_cold
from recsys.models.lstm.trainer import Schedule, train_network
from recsys.models.version_facts import Adopted, AdoptedSetting
from recsys.training.blend_search import K, calibrate, candidates_of
from recsys.training.dataset import make_dataset
from recsys.training.event_log import EventLog
from recsys.training.report import reciprocal_rank
from recsys.training.run import Run

if TYPE_CHECKING:
    import optuna

LAYERS = (1, 2)
WIDTHS = (64, 96, 128, 192, 256)
LENGTHS = (20, 50, 100)
NEGATIVES = (512, 1_024, 2_048)

SettingValues = Mapping[str, Mapping[str, Any]]  # section -> key -> value


@dataclass(frozen=True)
class SearchBudget:
    """How many trials a search adds, and for how long it starts them."""

    trials: int
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class TrialResult:
    """What one of Optuna's trials tried, and the validation MRR@20 it reached."""

    number: int
    mrr: float | None  # None = pruned
    values: Mapping[str, float]


@dataclass(frozen=True)
class TuningResult:
    """The best settings found, and the validation MRR@20 they reached."""

    best: SettingValues
    mrr: float
    trials: int  # finished ones, those of earlier searches included
    pruned: int


def search_settings(
    log: EventLog,
    settings: Settings,
    cut_us: int,
    folder: Path,
    budget: SearchBudget,
    run: Run,
    on_trial: Callable[[TrialResult], None] = lambda result: None,
) -> TuningResult:
    """Search on the events before `cut_us`; the study is kept in `folder`.

    The current settings are the first trial, so that the result is never worse than they are on
    validation. The stage of the run's progress is 'trial N'. Raises NotEnoughDataError where
    validation has too few positions to judge by.
    """
    # It takes a third of a second to load, which no other command has to wait for.
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    dataset = make_dataset(log, settings, cut_us)
    if not dataset.can_validate:
        raise NotEnoughDataError(f"{len(dataset.validation)} validation positions are too few")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    # A study is of one log and one start: with others it would compare what cannot be compared.
    digest = hashlib.sha256(dataset.train.items.tobytes())
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
        return _validation_mrr(trial, log, settings, cut_us, run)

    def report(_study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        on_trial(TrialResult(trial.number, trial.value, dict(trial.params)))

    study.optimize(
        objective, n_trials=budget.trials, timeout=budget.timeout_seconds, callbacks=[report]
    )
    states = [trial.state for trial in study.trials]
    return TuningResult(
        best=_sections(study.best_params),
        mrr=float(study.best_value),
        trials=states.count(optuna.trial.TrialState.COMPLETE),
        pruned=states.count(optuna.trial.TrialState.PRUNED),
    )


def _validation_mrr(
    trial: optuna.Trial, log: EventLog, settings: Settings, cut_us: int, run: Run
) -> float:
    """Train with a trial's values; the best validation MRR@20 of an epoch. Raises TrialPruned."""
    import optuna

    chosen = with_values(settings, _suggest(trial, _current(settings)))
    dataset = make_dataset(log, chosen, cut_us)
    trainer = dataset.trainer()
    start_cold(trainer, dataset.fit)
    bundle = dataset.bundle("tune", trainer)
    sample = dataset.epoch_sample()
    best = 0.0

    def validate(_scorer: BatchScorer) -> float:
        nonlocal best
        candidates = candidates_of(bundle, sample, ())
        blend = calibrate(candidates).blend
        mrr = float(reciprocal_rank(candidates.ranks(blend), K).mean())
        best = max(best, mrr)
        step = trial.user_attrs.get("epochs", 0)
        trial.set_user_attr("epochs", step + 1)
        trial.report(mrr, step)
        if trial.should_prune():
            raise optuna.TrialPruned
        return mrr

    train_network(
        dataset.fit,
        dataset.weights[dataset.in_fit],
        trainer,
        validate,
        run.on_progress,
        schedule=Schedule(f"trial {trial.number}"),
    )
    return best


SECTION_OF = {
    "width": "model",
    "layers": "model",
    "embedding_dropout": "model",
    "dropout": "model",
    "learning_rate": "training",
    "negatives": "training",
    "max_length": "sequences",
}


def with_values(settings: Settings, values: SettingValues) -> Settings:
    """`settings` with `values` in place of its own."""
    sections = {
        name: getattr(settings, name).model_copy(update=dict(found))
        for name, found in values.items()
    }
    return settings.model_copy(update=sections)


def adoption(settings: Settings, tuned: SettingValues | None, champion: Bundle | None) -> Adopted:
    """The settings a training adopts: those of `tuned` where given, else the champion's."""
    if tuned is None:
        return champion.facts.adopted if champion is not None else {}
    return {
        section: {
            key: AdoptedSetting(value, getattr(getattr(settings, section), key))
            for key, value in values.items()
        }
        for section, values in tuned.items()
    }


def with_adopted(settings: Settings, adopted: Adopted) -> Settings:
    """`settings` with what was adopted, but for keys that were configured anew since."""
    kept: dict[str, dict[str, Any]] = {}
    for section, values in adopted.items():
        for key, one in values.items():
            if getattr(getattr(settings, section, None), key, None) == one.configured:
                kept.setdefault(section, {})[key] = one.value
    return with_values(settings, kept)


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
