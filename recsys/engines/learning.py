"""Event frame -> a trained, evaluated bundle, with the gate's verdict on it.

The way of one training, in time:

    |------ fit ------|-- validation --|---- test window ----|
    |            training             cut

The network stops on validation; there its word is weighed, its blend with the rankers and the
ranking to serve are chosen. Then fit and validation are learned together, from the start or, from
a champion's weights, in a short pass. Then every system ranks the test window, which none has seen.
Only after the verdict may the window itself be learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.config import Settings
from recsys.data.events import EventFrame
from recsys.data.large_arrays import compress, count_codes, look_up
from recsys.data.repeats import RepeatPolicy, learn_repeat_policy
from recsys.data.sequences import Histories, Sequences, build_sequences
from recsys.data.splits import (
    Positions,
    baskets_from,
    cut_for_share,
    events_before,
    positions_from,
    tied_share,
)
from recsys.data.vocabulary import FIRST_ITEM, UNKNOWN, Vocabulary
from recsys.engines.blending import (
    Quality,
    calibrate,
    candidates_of,
    choose_blend,
    choose_session_knn,
    ranker_quality,
)
from recsys.errors import NotEnoughDataError
from recsys.evaluation.metrics import reciprocal_rank, target_ranks
from recsys.evaluation.report import Scorer
from recsys.model.checkpoint import TrainingCheckpoint
from recsys.model.scoring import NetworkScorer
from recsys.model.trainer import Trainer, start_from
from recsys.model.training import (
    WARM_RATE,
    LearningCurve,
    Progress,
    final_pass,
    start_cold,
    train_network,
)
from recsys.rankers import RANKERS, Ranker
from recsys.rankers.blend import Blend
from recsys.rankers.popular import Popular
from recsys.rankers.session_knn import SessionKnn
from recsys.registry import Bundle
from recsys.serving.ranking import BLEND, BLENDED, LSTM, scores
from recsys.tracing import traced

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]

VALIDATION_POSITIONS = 5_000
WARM_POSITIONS = 4_000  # the same for a warm start, whose choices are mostly made
EPOCH_POSITIONS = 2_000  # ranked after each epoch
ENOUGH_POSITIONS = 200  # to choose weights by
HARM_POSITIONS = 2_000
TIED = 0.5  # share of steps without a gap beyond which a log is one of baskets
HARM_MARGIN = 0.05  # of the MRR before the window was learned
K = 20
ANYWHERE = {"processes", "worker_timeout_seconds"}  # of [training]: they change no result


@dataclass(frozen=True)
class Log:
    """An event frame as ordered sequences of the events that count, in frame codes."""

    sequences: Sequences  # items are frame codes
    item_ids: list[str]
    type_names: list[str]
    target_codes: tuple[int, ...]  # event type codes that are targets; empty = all
    weights: Float32Array  # (type codes,) weight of a target of each type
    categories: Mapping[str, str] = field(default_factory=dict)  # item id -> its category
    baskets: bool = False  # whether a target is any item of the next moment

    def positions(self, encoded: Sequences, cut_us: int, end_us: int | None = None) -> Positions:
        """The targets in [cut_us, end_us) of `encoded`, which are this log's own sequences."""
        mask = None
        if self.target_codes:
            mask = _of_types(self.sequences, self.target_codes, len(self.type_names))
        cut = baskets_from if self.baskets else positions_from
        return cut(encoded, cut_us, end_us, mask)

    def encoded(self, vocabulary: Vocabulary, event_types: list[str]) -> Sequences:
        """The sequences in the indices of `vocabulary` and the codes of `event_types` (1..)."""
        codes = {name: code for code, name in enumerate(event_types, 1)}
        types = np.array([codes.get(name, 0) for name in self.type_names], np.int16)
        return replace(
            self.sequences.recode(vocabulary.encode(self.item_ids)),
            event_types=look_up(types, self.sequences.event_types, self.sequences.folder)
            if len(types)
            else self.sequences.event_types,
        )

    def target_weights(self) -> Float32Array:
        """Weight of each event as a target; (E,)."""
        return look_up(self.weights, self.sequences.event_types, self.sequences.folder)


def make_log(
    frame: EventFrame, settings: Settings, categories: Mapping[str, str] | None = None
) -> Log:
    """Order the frame's events and keep the types that are inputs or targets.

    `categories`: the category of each item that has one.
    """
    chosen = settings.sequences
    sequences = build_sequences(frame, chosen.session_gap_minutes * 60)
    if chosen.max_user_events and sequences.lengths.max(initial=0) > chosen.max_user_events:
        # One user, a bot say, does not outweigh all others: the newest events of each count.
        newest = np.ones(sequences.event_count, np.bool_)
        for number in np.flatnonzero(sequences.lengths > chosen.max_user_events):
            oldest, end = sequences.offsets[number : number + 2]
            newest[oldest : end - chosen.max_user_events] = False
        sequences = sequences.keep(newest)
    names = frame.type_names
    if chosen.input_event_types:
        wanted = {*chosen.input_event_types, *chosen.target_event_types}
        codes = [code for code, name in enumerate(names) if name in wanted]
        sequences = sequences.keep(_of_types(sequences, codes, len(names)))
    targets = set(chosen.target_event_types)
    target_codes = tuple(code for code, name in enumerate(names) if name in targets)
    if targets and not target_codes:
        raise NotEnoughDataError(
            f"no event is of a type in sequences.target_event_types: {', '.join(sorted(targets))}"
        )
    weights = np.array(
        [
            chosen.event_weights.get(name, 1.0) if not targets or name in targets else 0.0
            for name in names
        ],
        np.float32,
    )
    asked = settings.evaluation.target
    baskets = asked == "next_basket" or (asked == "auto" and tied_share(sequences) > TIED)
    return Log(sequences, frame.item_ids, names, target_codes, weights, categories or {}, baskets)


@dataclass(frozen=True)
class Learned:
    """What a training gives: the bundle, and what the network's learning looked like."""

    bundle: Bundle
    trainer: Trainer
    curve: LearningCurve
    validation: dict[str, Quality]  # of each ranking; empty where there was too little to choose by
    cut_us: int  # the test window's start
    warm: bool  # whether it started from a champion's weights


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
    warm = champion is not None and _start_warm(trainer, champion, lesson.vocabulary, lesson.fit)
    if not warm:
        start_cold(trainer, lesson.fit)
    bundle = lesson.bundle(version, trainer)
    key = _fingerprint(lesson, warm)
    if warm:
        assert champion is not None
        _catch_up(lesson, trainer, champion, on_progress)
        curve = None
    else:
        curve = _fit(lesson, trainer, bundle, on_progress, _checkpoint(workplace, "fit", key))
    bundle, validation = _weigh(bundle, lesson, champion if warm else None)
    best = max(validation, key=lambda name: validation[name].figure) if validation else BLEND
    if curve is None or (settings.training.refit and not lesson.before.all()):
        trainer = lesson.trainer()
        if curve is None:
            assert champion is not None
            _start_warm(trainer, champion, lesson.vocabulary, lesson.train)
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
    glance = lesson.positions.sample(EPOCH_POSITIONS, lesson.rng())

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


def _catch_up(
    lesson: Lesson,
    trainer: Trainer,
    champion: Bundle,
    on_progress: Callable[[Progress], None],
) -> None:
    """One pass over the fit part if the champion has not seen all of it.

    Otherwise its weights are fit for validation as they are, and all that is new is validation.
    """
    if (lesson.fit.timestamps_us > champion.facts["data_end_us"]).any():
        final_pass(lesson.fit, lesson.fit_weights, trainer, 1, on_progress)


@dataclass(frozen=True)
class Lesson:
    """What is learned from, cut in two: the fit part trains, validation decides."""

    settings: Settings
    vocabulary: Vocabulary
    event_types: list[str]
    categories: list[str]
    item_categories: Int32Array  # (V,)
    repeats: RepeatPolicy
    train: Sequences
    weights: Float32Array  # (E,) of `train`
    before: NDArray[np.bool_]  # (E,) which of its events are in the fit part
    fit: Sequences
    positions: Positions  # validation; VALIDATION_POSITIONS or WARM_POSITIONS at most

    @property
    def enough(self) -> bool:
        """Whether there are positions enough to choose by."""
        return len(self.positions) >= ENOUGH_POSITIONS

    @property
    def fit_weights(self) -> Float32Array:
        """Weight of each event of the fit part as a target; (E,)."""
        return compress(self.weights, self.before, self.fit.folder)

    def rankers(
        self, sequences: Sequences, settings: Mapping[str, Ranker] | None = None
    ) -> dict[str, Ranker]:
        """`fit_rankers` with this lesson's vocabulary and bound."""
        limit = self.settings.training.ranker_events
        return fit_rankers(sequences, len(self.vocabulary), limit, settings)

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.settings.training.seed)

    def trainer(self) -> Trainer:
        """A fresh network and its optimisers."""
        return Trainer(
            len(self.vocabulary),
            len(self.event_types) + 1,
            self.settings.sequences.max_length,
            self.settings.model,
            self.settings.training,
            self.repeats,
            self.item_categories,
        )

    def bundle(self, version: str, trainer: Trainer) -> Bundle:
        """The trainer's network and the rankers of the fit part; nothing weighed yet."""
        sequences = self.settings.sequences
        return Bundle(
            version=version,
            vocabulary=self.vocabulary,
            event_types=self.event_types,
            network=trainer.network,
            rankers=self.rankers(self.fit),
            repeats=self.repeats,
            ranking=LSTM,
            max_length=sequences.max_length,
            session_gap_seconds=sequences.session_gap_minutes * 60,
            input_event_types=sequences.input_event_types,
            facts={},
            blends={LSTM: Blend({LSTM: 1.0})},
            categories=self.categories,
        )


def prepare(log: Log, settings: Settings, cut_us: int, champion: Bundle | None = None) -> Lesson:
    """The events before `cut_us`, encoded and cut into fit part and validation.

    Raises NotEnoughDataError where there are too few.
    """
    history = replace(log, sequences=events_before(log.sequences, cut_us))
    if history.sequences.event_count < settings.training.min_events:
        raise NotEnoughDataError(
            f"{history.sequences.event_count} events to train on; "
            f"training.min_events asks for {settings.training.min_events}"
        )
    vocabulary, event_types, categories = _words(history, champion)
    train = history.encoded(vocabulary, event_types)
    validation_cut = cut_for_share(train, settings.evaluation.validation_share)
    if champion is not None:
        # What the champion has learned cannot tell whether this training is any good.
        validation_cut = max(validation_cut, champion.facts["data_end_us"] + 1)
    before = train.timestamps_us < validation_cut
    fit = train.keep(before)
    rng = np.random.default_rng(settings.training.seed)
    positions = _known_positions(history, train, fit, validation_cut)
    return Lesson(
        settings=settings,
        vocabulary=vocabulary,
        event_types=event_types,
        categories=categories,
        item_categories=_category_codes(log.categories, vocabulary, categories),
        repeats=learn_repeat_policy(train.newest(settings.training.ranker_events)),
        train=train,
        weights=history.target_weights(),
        before=before,
        fit=fit,
        positions=positions.sample(WARM_POSITIONS if champion else VALIDATION_POSITIONS, rng),
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
        rankers["session_knn"] = _with_choices(knn, champion.rankers)
    bundle = replace(bundle, rankers=rankers)
    candidates = candidates_of(bundle, lesson.positions, BLENDED)
    alone, _ = calibrate(candidates)
    blend, _ = choose_blend(candidates, alone)
    bundle = replace(bundle, blends={LSTM: alone, BLEND: blend})
    found = {name: Quality.of(candidates.ranks(each)) for name, each in bundle.blends.items()}
    found |= {n: ranker_quality(r, lesson.positions, bundle) for n, r in rankers.items()}
    return bundle, found


@traced("learn window")
def learn_window(
    log: Log,
    learned: Learned,
    positions: Positions,
    settings: Settings,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Bundle, dict[str, Any]]:
    """One short pass over the test window too, after the verdict; new items get rows of their own.

    Checked against harm on a sample of the window: where the served MRR@20 falls by more than
    HARM_MARGIN of itself the bundle from before the pass is kept. The second value says what
    happened, for the version's facts.
    """
    sample = positions.sample(HARM_POSITIONS, np.random.default_rng(settings.training.seed))
    old = learned.bundle
    before = mean_reciprocal_rank(scorer_of(old), sample)
    vocabulary, event_types, categories = _words(log, old)
    trainer = Trainer(
        len(vocabulary),
        len(event_types) + 1,
        old.max_length,
        settings.model,
        settings.training,
        old.repeats,
        _category_codes(log.categories, vocabulary, categories),
    )
    everything = log.encoded(vocabulary, event_types)
    if not _start_warm(trainer, old, vocabulary, everything):
        return old, {"learned": False}
    # Only sequences that reach into the window are passed over; older ones were learned already.
    newest = np.maximum.reduceat(everything.timestamps_us, everything.offsets[:-1])
    mask = np.repeat(newest >= learned.cut_us, everything.lengths)
    final_pass(everything.keep(mask), log.target_weights()[mask], trainer, 1, on_progress)
    bundle = replace(
        old,
        vocabulary=vocabulary,
        event_types=event_types,
        categories=categories,
        network=trainer.network,
        rankers=fit_rankers(
            everything, len(vocabulary), settings.training.ranker_events, old.rankers
        ),
    )
    after = mean_reciprocal_rank(scorer_of(bundle), sample)
    kept = after >= before * (1.0 - HARM_MARGIN)
    facts = {
        "learned": kept,
        "mrr_before": before,
        "mrr_after": after,
        "new_items": len(vocabulary) - len(old.vocabulary),
        "events": int((log.sequences.timestamps_us >= learned.cut_us).sum()),
    }
    return (bundle if kept else old), facts


def fit_rankers(
    sequences: Sequences,
    rows: int,
    limit: int,
    settings: Mapping[str, Ranker] | None = None,
) -> dict[str, Ranker]:
    """Every ranker, fitted to sequences of vocabulary indices, with the settings of `settings`.

    What counts steps and sessions is fitted to the newest `limit` events: it needs some 250 bytes
    of memory for each.
    """
    newest = sequences.newest(limit)
    fitted: dict[str, Ranker] = {
        name: kind.fit(sequences if issubclass(kind, Popular) else newest, rows)
        for name, kind in RANKERS.items()
    }
    knn = fitted["session_knn"]
    assert isinstance(knn, SessionKnn)
    fitted["session_knn"] = _with_choices(knn, settings or {})
    return fitted


def _with_choices(knn: SessionKnn, settings: Mapping[str, Ranker]) -> SessionKnn:
    """`knn` with what was chosen on validation for the one among `settings`, if there is one."""
    chosen = settings.get("session_knn")
    if not isinstance(chosen, SessionKnn):
        return knn
    return replace(knn, order_decay=chosen.order_decay, copy_share=chosen.copy_share)


def window_positions(log: Log, bundle: Bundle, cut_us: int, end_us: int | None = None) -> Positions:
    """Every target at or after `cut_us` in the bundle's own indices, in the log's order.

    Two bundles over one log give the same positions, each with its own numbers for the items.
    """
    sequences = log.encoded(bundle.vocabulary, bundle.event_types)
    return log.positions(sequences, cut_us, end_us)


def scorer_of(bundle: Bundle, ranking: str | None = None) -> Scorer:
    """`recsys.serving.ranking.scores` of one ranking, as evaluation wants it."""

    def scorer(histories: Histories) -> Float32Array:
        return scores(bundle, histories, ranking)

    return scorer


def mean_reciprocal_rank(scorer: Scorer, positions: Positions, batch: int = 128) -> float:
    """MRR@20 over `positions`."""
    total = 0.0
    for at in range(0, len(positions), batch):
        found = scorer(positions.histories.batch(at, at + batch))
        total += float(reciprocal_rank(target_ranks(found, positions, at), K).sum())
    return total / max(1, len(positions))


def _words(log: Log, champion: Bundle | None) -> tuple[Vocabulary, list[str], list[str]]:
    """Items, event types and categories of the log's events alone: nothing later leaks in.

    Those a champion knows come first and in its order, so that its weights keep their meaning.
    """
    codes = np.flatnonzero(count_codes(log.sequences.items, len(log.item_ids)))
    items = [log.item_ids[code] for code in codes]
    seen_types = np.flatnonzero(count_codes(log.sequences.event_types, len(log.type_names)))
    types = [log.type_names[code] for code in seen_types]
    categories = sorted({log.categories[item] for item in items if item in log.categories})
    if champion is None:
        return Vocabulary(items), types, categories
    known = set(champion.vocabulary.item_ids)
    return (
        Vocabulary([*champion.vocabulary.item_ids, *(i for i in items if i not in known)]),
        [*champion.event_types, *(t for t in types if t not in champion.event_types)],
        [*champion.categories, *(c for c in categories if c not in champion.categories)],
    )


def _category_codes(
    category_of: Mapping[str, str], vocabulary: Vocabulary, categories: list[str]
) -> Int32Array:
    """The category code of each vocabulary row, 0 where there is none; (V,)."""
    codes = {name: code for code, name in enumerate(categories, 1)}
    found = [codes.get(category_of.get(item, ""), 0) for item in vocabulary.item_ids]
    return np.array([0] * FIRST_ITEM + found, np.int32)


def _start_warm(
    trainer: Trainer, champion: Bundle, vocabulary: Vocabulary, sequences: Sequences
) -> bool:
    """Give the trainer the champion's weights; False where they do not fit it."""
    if champion.network is None:
        return False
    rows = np.concatenate(
        (np.arange(FIRST_ITEM), champion.vocabulary.encode(vocabulary.item_ids))
    ).astype(np.int64)
    rows[FIRST_ITEM:][rows[FIRST_ITEM:] == UNKNOWN] = -1
    return start_from(trainer, champion.network, rows, sequences)


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


def _of_types(sequences: Sequences, codes: Sequence[int], count: int) -> NDArray[np.bool_]:
    """Which events are of a type among `codes`, of `count` types; (E,)."""
    wanted = np.zeros(count, np.bool_)
    wanted[list(codes)] = True
    return look_up(wanted, sequences.event_types, sequences.folder)


def _known_positions(history: Log, train: Sequences, fit: Sequences, cut_us: int) -> Positions:
    """Validation positions whose target the fit part has seen."""
    positions = history.positions(train, cut_us)
    rows = max(int(train.items.max(initial=UNKNOWN)) + 1, FIRST_ITEM)
    known = count_codes(fit.items, rows) > 0
    if positions.baskets is None or len(positions) == 0:
        return positions.where(known[positions.targets])
    hits = np.add.reduceat(known[positions.baskets.items], positions.baskets.offsets[:-1])
    return positions.where(hits > 0)
