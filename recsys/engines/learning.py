"""Event frame -> a trained, evaluated bundle, with the gate's verdict on it.

The way of one training, in time:

    |------ fit ------|-- validation --|---- test window ----|
    |            training             cut

The network stops on validation, the ranking to serve is chosen there, a short final pass learns
fit and validation together. Then every system ranks the test window, which none has seen. Only
after the verdict may the window itself be learned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.config import Settings
from recsys.data.events import EventFrame
from recsys.data.sequences import Histories, Sequences, build_sequences
from recsys.data.splits import Positions, cut_for_share, events_before, positions_from
from recsys.data.vocabulary import FIRST_ITEM, UNKNOWN, Vocabulary
from recsys.errors import NotEnoughDataError
from recsys.evaluation.metrics import ranks, reciprocal_rank
from recsys.evaluation.report import Scorer
from recsys.model.scoring import NetworkScorer
from recsys.model.training import LearningCurve, Progress, Trainer, final_pass, train_network
from recsys.rankers import RANKERS, Ranker
from recsys.rankers.repeats import learn_repeat_policy
from recsys.registry import Bundle
from recsys.serving.ranking import rankings, scores

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]

VALIDATION_POSITIONS = 5_000
EPOCH_POSITIONS = 2_000  # ranked after each epoch
HARM_POSITIONS = 2_000
HARM_MARGIN = 0.05  # of the MRR before the window was learned
K = 20


@dataclass(frozen=True)
class Log:
    """An event frame as ordered sequences of the events that count, in frame codes."""

    sequences: Sequences  # items are frame codes
    item_ids: list[str]
    type_names: list[str]
    target_codes: tuple[int, ...]  # event type codes that are targets; empty = all
    weights: Float32Array  # (type codes,) weight of a target of each type

    def encoded(self, vocabulary: Vocabulary, event_types: list[str]) -> Sequences:
        """The sequences in the indices of `vocabulary` and the codes of `event_types` (1..)."""
        codes = {name: code for code, name in enumerate(event_types, 1)}
        types = np.array([codes.get(name, 0) for name in self.type_names], np.int16)
        return replace(
            self.sequences.recode(vocabulary.encode(self.item_ids)),
            event_types=types[self.sequences.event_types]
            if len(types)
            else self.sequences.event_types,
        )

    def target_weights(self) -> Float32Array:
        """Weight of each event as a target; (E,)."""
        return self.weights[self.sequences.event_types]


def make_log(frame: EventFrame, settings: Settings) -> Log:
    """Order the frame's events and keep the types that are inputs or targets."""
    chosen = settings.sequences
    sequences = build_sequences(frame, chosen.session_gap_minutes * 60)
    names = frame.type_names
    if chosen.input_event_types:
        wanted = {*chosen.input_event_types, *chosen.target_event_types}
        codes = [code for code, name in enumerate(names) if name in wanted]
        sequences = sequences.keep(np.isin(sequences.event_types, codes))
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
    return Log(sequences, frame.item_ids, names, target_codes, weights)


@dataclass(frozen=True)
class Learned:
    """What a training gives: the bundle, and what the network's learning looked like."""

    bundle: Bundle
    curve: LearningCurve
    validation: dict[str, float]  # MRR@20 of each ranking on validation
    cut_us: int  # the test window's start


def learn(
    log: Log,
    settings: Settings,
    version: str,
    cut_us: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Learned, Trainer]:
    """Train on the events before `cut_us`; nothing at or after it is looked at.

    Raises NotEnoughDataError where too little is left, TrainingError where the loss breaks.
    """
    history = replace(log, sequences=events_before(log.sequences, cut_us))
    if history.sequences.event_count < settings.training.min_events:
        raise NotEnoughDataError(
            f"{history.sequences.event_count} events to train on; "
            f"training.min_events asks for {settings.training.min_events}"
        )
    vocabulary, event_types = _words(history)
    train = history.encoded(vocabulary, event_types)
    weights = history.target_weights()
    validation_cut = cut_for_share(train, settings.evaluation.validation_share)
    before = train.timestamps_us < validation_cut
    fit = train.keep(before)
    rows = len(vocabulary)
    repeats = learn_repeat_policy(train)
    trainer = Trainer(
        rows,
        len(event_types) + 1,
        settings.sequences.max_length,
        settings.model,
        settings.training,
    )
    bundle = Bundle(
        version=version,
        vocabulary=vocabulary,
        event_types=event_types,
        network=trainer.network,
        rankers=fit_rankers(fit, rows),
        repeats=repeats,
        ranking="lstm",
        max_length=settings.sequences.max_length,
        session_gap_seconds=settings.sequences.session_gap_minutes * 60,
        input_event_types=settings.sequences.input_event_types,
        facts={},
    )
    rng = np.random.default_rng(settings.training.seed)
    positions = _positions(train, fit, validation_cut, history.target_codes, event_types, log)
    positions = positions.sample(VALIDATION_POSITIONS, rng)
    glance = positions.sample(EPOCH_POSITIONS, rng)

    def validate(_scorer: NetworkScorer) -> float:
        return mean_reciprocal_rank(scorer_of(bundle, "lstm"), glance)

    curve = train_network(
        fit, weights[before], trainer, validate if len(glance) else None, on_progress
    )
    validation = {
        name: mean_reciprocal_rank(scorer_of(bundle, name), positions) if len(positions) else 0.0
        for name in rankings(bundle)
    }
    final_pass(train, weights, trainer, settings.training.final_epochs, on_progress)
    best = max(validation, key=lambda name: validation[name]) if len(positions) else "lstm"
    learned = replace(bundle, rankers=fit_rankers(train, rows), ranking=best)
    return Learned(learned, curve, validation, cut_us), trainer


def learn_window(
    log: Log,
    learned: Learned,
    trainer: Trainer,
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
    window_first = int(np.searchsorted(np.sort(log.sequences.timestamps_us), learned.cut_us))
    seen = set(old.vocabulary.item_ids)
    fresh = np.unique(log.sequences.items[log.sequences.timestamps_us >= learned.cut_us])
    added = [log.item_ids[code] for code in fresh if log.item_ids[code] not in seen]
    vocabulary = Vocabulary([*old.vocabulary.item_ids, *added])
    grown = trainer.grown(len(vocabulary))
    everything = log.encoded(vocabulary, old.event_types)
    # Only sequences that reach into the window are passed over; older ones were learned already.
    reach = np.maximum.reduceat(everything.timestamps_us, everything.offsets[:-1]) >= learned.cut_us
    mask = np.repeat(reach, everything.lengths)
    final_pass(everything.keep(mask), log.target_weights()[mask], grown, 1, on_progress)
    bundle = replace(
        old,
        vocabulary=vocabulary,
        network=grown.network,
        rankers=fit_rankers(everything, len(vocabulary)),
    )
    after = mean_reciprocal_rank(scorer_of(bundle), sample)
    kept = after >= before * (1.0 - HARM_MARGIN)
    facts = {
        "learned": kept,
        "mrr_before": before,
        "mrr_after": after,
        "new_items": len(added),
        "events": log.sequences.event_count - window_first,
    }
    return (bundle if kept else old), facts


def fit_rankers(sequences: Sequences, rows: int) -> dict[str, Ranker]:
    """Every ranker, fitted to sequences of vocabulary indices."""
    return {name: kind.fit(sequences, rows) for name, kind in RANKERS.items()}


def window_positions(log: Log, bundle: Bundle, cut_us: int, end_us: int | None = None) -> Positions:
    """Every target at or after `cut_us` in the bundle's own indices, in the log's order.

    Two bundles over one log give the same positions, each with its own numbers for the items.
    """
    sequences = log.encoded(bundle.vocabulary, bundle.event_types)
    mask = np.isin(log.sequences.event_types, log.target_codes) if log.target_codes else None
    positions = positions_from(sequences, cut_us, end_us)
    return positions if mask is None else positions.where(mask[positions.histories.ends])


def scorer_of(bundle: Bundle, ranking: str | None = None) -> Scorer:
    """`recsys.serving.ranking.scores` of one ranking, as evaluation wants it."""

    def scorer(histories: Histories) -> Float32Array:
        return scores(bundle, histories, ranking)

    return scorer


def mean_reciprocal_rank(scorer: Scorer, positions: Positions, batch: int = 256) -> float:
    """MRR@20 over `positions`."""
    total = 0.0
    for at in range(0, len(positions), batch):
        found = scorer(positions.histories.batch(at, at + batch))
        total += float(reciprocal_rank(ranks(found, positions.targets[at : at + batch]), K).sum())
    return total / max(1, len(positions))


def _words(log: Log) -> tuple[Vocabulary, list[str]]:
    """Vocabulary and event types of the log's events alone: nothing later leaks in."""
    codes = np.unique(log.sequences.items)
    types = np.unique(log.sequences.event_types)
    return Vocabulary([log.item_ids[code] for code in codes]), [log.type_names[t] for t in types]


def _positions(
    train: Sequences,
    fit: Sequences,
    cut_us: int,
    target_codes: Collection[int],
    event_types: list[str],
    log: Log,
) -> Positions:
    """Validation positions whose target the fit part has seen."""
    codes = {name: code for code, name in enumerate(event_types, 1)}
    wanted = [codes[log.type_names[code]] for code in target_codes if log.type_names[code] in codes]
    positions = positions_from(train, cut_us, target_types=wanted)
    known = np.zeros(max(int(train.items.max(initial=UNKNOWN)) + 1, FIRST_ITEM), np.bool_)
    known[fit.items] = True
    return positions.where(known[positions.targets])
