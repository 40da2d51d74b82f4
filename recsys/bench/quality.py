"""bench quality: train on one file, rank the other; or one log, cut in time. No database.

Protocol of session files, as the research code of the field has it: the vocabulary is that of the
training file, items it does not hold are removed from the test file and then sessions of one event,
every further event is a position, the full catalogue is ranked, ties count against the ranking.
Validation is the newest part of the training file; nothing is chosen by the test file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.config import Settings
from recsys.data.events import EventFrame, EventFrameBuilder
from recsys.data.readers import ReadOptions, read_events
from recsys.data.sequences import Sequences
from recsys.data.splits import Positions, positions_from
from recsys.data.vocabulary import FIRST_ITEM
from recsys.engines.learning import Learned, Log, learn, make_log, scorer_of, window_positions
from recsys.errors import InputError, NotEnoughDataError
from recsys.evaluation.report import breakdown, plain, rank_positions, summarise, text_table
from recsys.model.training import Progress
from recsys.serving.ranking import rankings

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Inputs:
    """Where positions come from: the log that trains, and what is ranked after it."""

    log: Log
    test: Log | None  # its own file; None where the log is cut
    cut_us: int


def read_frame(path: Path, options: ReadOptions, now_us: int) -> tuple[EventFrame, int]:
    """A file as an event frame, and how many of its rows were left out."""
    builder = EventFrameBuilder()
    left_out = first = 0
    for chunk in read_events(path, options, now_us):
        left_out += len(chunk.rejections) + chunk.skipped
        events = chunk.events
        if events.num_rows:
            builder.append(events.combine_chunks())
        first += events.num_rows
    if first == 0:
        raise InputError("path", str(path), "no row of the file is an event")
    return builder.build(), left_out


def run_quality(
    settings: Settings,
    inputs: Inputs,
    seeds: int,
    on_progress: Report,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Every ranking on identical positions, figures averaged over `seeds` trainings."""
    tables: list[dict[str, dict[str, float]]] = []
    seconds = events_per_second = 0.0
    positions: Positions | None = None
    parts: dict[str, Any] = {}
    for number in range(seeds):
        seed = settings.training.seed + number
        training = settings.training.model_copy(update={"seed": seed})
        chosen = settings.model_copy(update={"training": training})
        started = time.perf_counter()
        learned, _ = learn(inputs.log, chosen, "bench", inputs.cut_us, on_progress)
        seconds += (time.perf_counter() - started) / seeds
        events_per_second += learned.curve.events_per_second / seeds
        positions = _positions(inputs, learned)
        if len(positions) == 0:
            raise NotEnoughDataError("no position is left to rank")
        rows = len(learned.bundle.vocabulary)
        outcomes = {
            name: rank_positions(positions, scorer_of(learned.bundle, name), rows)
            for name in rankings(learned.bundle)
        }
        outcomes = {"served": outcomes[learned.bundle.ranking], **outcomes}
        draws = settings.evaluation.bootstrap_draws
        tables.append(summarise(outcomes, positions, draws, settings.training.seed))
        parts = breakdown(outcomes["served"], positions)
        say(f"seed {seed}: serves {learned.bundle.ranking}")
        say(text_table(tables[-1]))
    assert positions is not None
    results = {
        name: {key: float(np.mean([table[name][key] for table in tables])) for key in row}
        for name, row in tables[0].items()
    }
    return {
        "results": plain(results),
        "breakdown": plain(parts),
        "train_seconds": round(seconds, 2),
        "events_per_second": round(events_per_second),
        "positions": int((positions.targets >= FIRST_ITEM).sum()),
        "positions_all": len(positions),
        "seeds": seeds,
        "served_by": learned.bundle.ranking,
    }


def session_files(
    train: Path, test: Path, options: ReadOptions, settings: Settings, now_us: int
) -> Inputs:
    """Two session files."""
    log = make_log(read_frame(train, options, now_us)[0], settings)
    other = make_log(read_frame(test, options, now_us)[0], settings)
    return Inputs(log, other, int(log.sequences.timestamps_us.max()) + 1)


def cut_log(
    path: Path, cut_us: int, options: ReadOptions, settings: Settings, now_us: int
) -> Inputs:
    """One log; everything before `cut_us` trains and is context."""
    return Inputs(make_log(read_frame(path, options, now_us)[0], settings), None, cut_us)


def _positions(inputs: Inputs, learned: Learned) -> Positions:
    if inputs.test is None:
        return window_positions(inputs.log, learned.bundle, inputs.cut_us)
    bundle = learned.bundle
    test: Sequences = inputs.test.encoded(bundle.vocabulary, bundle.event_types)
    test = test.keep(test.items >= FIRST_ITEM)
    return positions_from(test, 0)


def simulated_table(events: int, seed: int, end_us: int) -> pa.Table:
    """A simulated log as one table."""
    from recsys.data.simulation import Shop, ShopSize

    shoppers = max(10, events // 20)
    shop = Shop(ShopSize(2_000, shoppers, events), seed, end_us)
    return pa.concat_tables(shop.events())
