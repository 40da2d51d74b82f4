"""Order the event frame into the log that trains: per-user sequences of the event types that count.

Legend: E events of all sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.config import Settings
from recsys.errors import NotEnoughDataError
from recsys.events.array_types import BoolArray, Float32Array
from recsys.events.frame import EventFrame
from recsys.events.large_arrays import look_up
from recsys.events.sequences import Sequences, build_sequences
from recsys.events.time_split import (
    Positions,
    baskets_from,
    cut_for_share,
    positions_from,
    tied_share,
)
from recsys.events.vocabulary import Vocabulary
from recsys.models.bundle import Bundle
from recsys.models.content import Contents
from recsys.models.text_encoder import configured_encoder
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.training.item_content import newest_contents

TIED = 0.5  # share of steps without a gap beyond which a log is one of baskets


@dataclass(frozen=True)
class EventLog:
    """An event frame as ordered sequences of the events that count, in frame codes."""

    sequences: Sequences  # items are frame codes
    item_ids: list[str]
    type_names: list[str]
    target_codes: tuple[int, ...]  # event type codes that are targets; empty = all
    weights: Float32Array  # (type codes,) weight of a target of each type
    categories: Mapping[str, str] = field(default_factory=dict)  # item id -> its category
    contents: Contents = field(default_factory=dict)  # of the catalogue's newest items
    baskets: bool = False  # whether a target is any item of the next moment
    everything: Sequences | None = None  # those of all types; None: `sequences` are

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
    frame: EventFrame,
    settings: Settings,
    categories: Mapping[str, str] | None = None,
    contents: Contents | None = None,
) -> EventLog:
    """Order the frame's events and keep the types that are inputs or targets.

    `categories`: the category of each item that has one; `contents`: what the catalogue says of items.
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
    names, everything = frame.type_names, sequences
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
    return EventLog(
        sequences,
        frame.item_ids,
        names,
        target_codes,
        weights,
        categories or {},
        contents or {},
        baskets,
        everything,
    )


def read_log(database: Database, frame: EventFrame, settings: Settings) -> EventLog:
    """`make_log` with the category that the catalogue gives each item, and what it says of the newest."""
    encoder = configured_encoder(settings.model)
    with database.connect() as connection:
        categories = item_rows.first_categories(connection)
        contents = newest_contents(connection, encoder) if settings.model.content else {}
    return make_log(frame, settings, categories, contents)


def window_start(log: EventLog, settings: Settings, champion: Bundle | None) -> int:
    """Where the test window starts, in us: never inside what the champion has learned.

    Raises NotEnoughDataError where the log is shorter than `training.min_events`.
    """
    # Checked once more: of the types that count there may be fewer.
    if log.sequences.event_count < settings.training.min_events:
        raise NotEnoughDataError(
            f"{log.sequences.event_count} events; training.min_events asks for "
            f"{settings.training.min_events}"
        )
    cut_us = cut_for_share(log.sequences, settings.evaluation.window_share)
    known_until = champion.facts.data_end_us if champion is not None else 0
    return max(cut_us, known_until + 1)


def _of_types(sequences: Sequences, codes: Sequence[int], count: int) -> BoolArray:
    """Which events are of a type among `codes`, of `count` types; (E,)."""
    wanted = np.zeros(count, np.bool_)
    wanted[list(codes)] = True
    return look_up(wanted, sequences.event_types, sequences.folder)
