"""Cut the events before the test window into the fit part, which trains, and validation, which decides.

Legend: E events of all sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from recsys.config import Settings
from recsys.errors import NotEnoughDataError
from recsys.events.array_types import BoolArray, Float32Array, Int32Array
from recsys.events.large_arrays import compress, count_codes
from recsys.events.repeat_policy import RepeatPolicy, learn_repeat_policy
from recsys.events.seen_returns import SeenDefault, learn_default
from recsys.events.sequences import Sequences
from recsys.events.time_split import Positions, cut_for_share, events_before
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN, Vocabulary
from recsys.models.blend import Blend
from recsys.models.bundle import Bundle
from recsys.models.lstm.trainer import Trainer
from recsys.models.ranker import Ranker
from recsys.models.rankers import fit_rankers
from recsys.models.version_facts import VersionFacts
from recsys.training.event_log import EventLog
from recsys.training.report import ENOUGH_POSITIONS

VALIDATION_POSITIONS = 5_000
WARM_POSITIONS = 4_000  # the same for a warm start, whose choices are mostly made
EPOCH_POSITIONS = 2_000  # ranked after each epoch
REPLAYED_POSITIONS = 3_000  # on which the blend for a live log is chosen


@dataclass(frozen=True)
class Dataset:
    """Encoded events before the test window: the fit part trains, validation decides."""

    settings: Settings
    vocabulary: Vocabulary
    event_types: list[str]
    categories: list[str]
    item_categories: Int32Array  # (V,)
    repeats: RepeatPolicy
    seen: SeenDefault
    train: Sequences
    weights: Float32Array  # (E,) of `train`
    in_fit: BoolArray  # (E,) which of its events are in the fit part
    fit: Sequences
    validation: Positions  # VALIDATION_POSITIONS or WARM_POSITIONS at most, of targets fit has seen
    history: EventLog  # what `train` encodes
    validation_cut_us: int  # where validation begins

    @property
    def can_validate(self) -> bool:
        """Whether validation has positions enough to choose by."""
        return len(self.validation) >= ENOUGH_POSITIONS

    @property
    def fit_weights(self) -> Float32Array:
        """Weight of each event of the fit part as a target; (E,)."""
        return compress(self.weights, self.in_fit, self.fit.folder)

    def rankers(
        self, sequences: Sequences, settings: Mapping[str, Ranker] | None = None
    ) -> dict[str, Ranker]:
        """Every ranker fitted to `sequences`, with the choices of `settings` where given."""
        limit = self.settings.training.ranker_events
        return fit_rankers(sequences, len(self.vocabulary), limit, settings)

    def replayed_positions(self) -> Positions:
        """Validation positions to replay, those of unseen targets among them."""
        rng = np.random.default_rng(self.settings.training.seed)
        everything = self.history.positions(self.train, self.validation_cut_us)
        return everything.sample(REPLAYED_POSITIONS, rng)

    def epoch_sample(self) -> Positions:
        """The sample of validation that is ranked after each epoch."""
        rng = np.random.default_rng(self.settings.training.seed)
        return self.validation.sample(EPOCH_POSITIONS, rng)

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
        """The trainer's network beside rankers of the fit part; no blend is chosen yet."""
        sequences = self.settings.sequences
        name = trainer.network.shape.body
        return Bundle(
            version=version,
            vocabulary=self.vocabulary,
            event_types=self.event_types,
            network=trainer.network,
            rankers=self.rankers(self.fit),
            repeats=self.repeats,
            ranking=name,
            max_length=sequences.max_length,
            session_gap_seconds=sequences.session_gap_minutes * 60,
            input_event_types=sequences.input_event_types,
            facts=VersionFacts(seen=self.seen),
            blends={name: Blend({name: 1.0})},
            categories=self.categories,
        )


def make_dataset(
    log: EventLog, settings: Settings, cut_us: int, champion: Bundle | None = None
) -> Dataset:
    """The events before `cut_us`, encoded and cut into fit part and validation.

    Raises NotEnoughDataError where there are too few.
    """
    history = replace(log, sequences=events_before(log.sequences, cut_us))
    if history.sequences.event_count < settings.training.min_events:
        raise NotEnoughDataError(
            f"{history.sequences.event_count} events to train on; "
            f"training.min_events asks for {settings.training.min_events}"
        )
    vocabulary, event_types, categories = vocabularies_of(history, champion)
    train = history.encoded(vocabulary, event_types)
    validation_cut = cut_for_share(train, settings.evaluation.validation_share)
    if champion is not None:
        # What the champion has learned cannot tell whether this training is any good.
        validation_cut = max(validation_cut, champion.facts.data_end_us + 1)
    in_fit = train.timestamps_us < validation_cut
    fit = train.keep(in_fit)
    rng = np.random.default_rng(settings.training.seed)
    positions = _known_positions(history, train, fit, validation_cut)
    everything = history.sequences
    if log.everything is not None and log.everything is not log.sequences:
        everything = events_before(log.everything, cut_us)
    return Dataset(
        settings=settings,
        vocabulary=vocabulary,
        event_types=event_types,
        categories=categories,
        item_categories=category_codes(log.categories, vocabulary, categories),
        repeats=learn_repeat_policy(train.newest(settings.training.ranker_events)),
        seen=learn_default(everything, log.type_names, settings.attribution.types),
        train=train,
        weights=history.target_weights(),
        in_fit=in_fit,
        fit=fit,
        validation=positions.sample(WARM_POSITIONS if champion else VALIDATION_POSITIONS, rng),
        history=history,
        validation_cut_us=validation_cut,
    )


def vocabularies_of(
    log: EventLog, champion: Bundle | None
) -> tuple[Vocabulary, list[str], list[str]]:
    """The items, event types and categories of the log's events, and of no later ones.

    Those that a champion knows come first and in its order, so that its weights keep their meaning.
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


def category_codes(
    category_of: Mapping[str, str], vocabulary: Vocabulary, categories: list[str]
) -> Int32Array:
    """The category code of each vocabulary row, 0 where there is none; (V,)."""
    codes = {name: code for code, name in enumerate(categories, 1)}
    found = [codes.get(category_of.get(item, ""), 0) for item in vocabulary.item_ids]
    return np.array([0] * FIRST_ITEM + found, np.int32)


def _known_positions(history: EventLog, train: Sequences, fit: Sequences, cut_us: int) -> Positions:
    """Validation positions whose target the fit part has seen."""
    positions = history.positions(train, cut_us)
    rows = max(int(train.items.max(initial=UNKNOWN)) + 1, FIRST_ITEM)
    known = count_codes(fit.items, rows) > 0
    if positions.baskets is None or len(positions) == 0:
        return positions.where(known[positions.targets])
    hits = np.add.reduceat(known[positions.baskets.items], positions.baskets.offsets[:-1])
    return positions.where(hits > 0)
