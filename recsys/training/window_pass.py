"""Learn the test window too, after the verdict, in one short pass that is checked against harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.config import Settings
from recsys.events.time_split import Positions
from recsys.models.bundle import Bundle
from recsys.models.lstm.trainer import Trainer, final_pass
from recsys.models.rankers import fit_rankers
from recsys.models.version_facts import WindowPass
from recsys.tracing import traced
from recsys.training.dataset import category_codes, vocabularies_of
from recsys.training.evaluate import scorer_of, window_positions
from recsys.training.event_log import EventLog
from recsys.training.fit import FittedModel, start_warm
from recsys.training.item_content import with_content
from recsys.training.report import Scorer, reciprocal_rank, target_ranks
from recsys.training.run import Run

HARM_POSITIONS = 2_000
HARM_MARGIN = 0.05  # of the MRR before the window was learned
K = 20


@traced("learn window")
def learn_window(
    log: EventLog, fitted: FittedModel, settings: Settings, run: Run
) -> tuple[Bundle, WindowPass]:
    """Train one short pass over the test window, in which new items get rows of their own.

    Where `promotion.learn_window` is off, nothing can be ranked there, or the served MRR@20 on a
    sample of the window falls by more than HARM_MARGIN of itself, the fitted bundle stays as it is.
    """
    if not settings.promotion.learn_window:
        return fitted.bundle, WindowPass(learned=False)
    positions = window_positions(log, fitted.bundle, fitted.cut_us)
    if len(positions) == 0:
        return fitted.bundle, WindowPass(learned=False)
    sample = positions.sample(HARM_POSITIONS, np.random.default_rng(settings.training.seed))
    old = fitted.bundle
    before = mean_reciprocal_rank(scorer_of(old), sample)
    vocabulary, event_types, categories = vocabularies_of(log, old)
    trainer = Trainer(
        len(vocabulary),
        len(event_types) + 1,
        old.max_length,
        settings.model,
        settings.training,
        old.repeats,
        category_codes(log.categories, vocabulary, categories),
    )
    everything = log.encoded(vocabulary, event_types)
    if not start_warm(trainer, old, vocabulary, everything):
        return old, WindowPass(learned=False)
    # Only sequences that reach into the window are passed over; older ones were learned already.
    newest = np.maximum.reduceat(everything.timestamps_us, everything.offsets[:-1])
    mask = np.repeat(newest >= fitted.cut_us, everything.lengths)
    final_pass(everything.keep(mask), log.target_weights()[mask], trainer, 1, run.on_progress)
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
    bundle = with_content(bundle, log.contents, everything, settings.training.seed)
    after = mean_reciprocal_rank(scorer_of(bundle), sample)
    kept = after >= before * (1.0 - HARM_MARGIN)
    window = WindowPass(
        learned=kept,
        mrr_before=before,
        mrr_after=after,
        new_items=len(vocabulary) - len(old.vocabulary),
        events=int((log.sequences.timestamps_us >= fitted.cut_us).sum()),
    )
    return (bundle if kept else old), window


def mean_reciprocal_rank(scorer: Scorer, positions: Positions, batch: int = 128) -> float:
    """MRR@20 over `positions`."""
    total = 0.0
    for at in range(0, len(positions), batch):
        found = scorer(positions.histories.batch(at, at + batch))
        total += float(reciprocal_rank(target_ranks(found, positions, at), K).sum())
    return total / max(1, len(positions))
