"""Where a training starts from the champion's weights, and how."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys.data.sequences import Sequences
from recsys.data.vocabulary import FIRST_ITEM, UNKNOWN, Vocabulary
from recsys.engines.lesson import Lesson
from recsys.model.trainer import Trainer, start_from
from recsys.model.training import Progress, final_pass
from recsys.registry import Bundle


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
