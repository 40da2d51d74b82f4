"""When a training starts from the champion's weights, and how."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np

from recsys.config import Settings
from recsys.events.sequences import Sequences
from recsys.events.times import DAY_US, to_us
from recsys.events.vocabulary import FIRST_ITEM, UNKNOWN, Vocabulary
from recsys.models.bundle import Bundle
from recsys.models.lstm.inherited_weights import start_from
from recsys.models.lstm.trainer import Trainer
from recsys.models.lstm.training_loop import Progress, final_pass
from recsys.training.dataset import Lesson


def warm_champion(settings: Settings, champion: Bundle | None, now: datetime) -> Bundle | None:
    """The champion to start from; None where a cold start is due, wanted, or all there is."""
    if champion is None or not settings.training.warm_start:
        return None
    cold_us = champion.facts.get("cold_started_us", 0)
    due = cold_us + settings.training.cold_start_days * DAY_US
    return champion if to_us(now) < due else None


def cold_started_us(warm: bool, champion: Bundle | None, now: datetime) -> int:
    """When the weights of a training were started from nothing, by itself or before its champion."""
    if warm and champion is not None:
        return int(champion.facts.get("cold_started_us", 0))
    return to_us(now)


def start_warm(
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


def catch_up(
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
