"""Clicks that are meant to turn the model: stopped by the checks, or harmless to the others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.drills.fault_stage import Fault, shop_of
from bench.servers import small_settings
from recsys.config import Settings
from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.events.times import DAY_US, to_us
from recsys.registry import new_version
from recsys.training.data_checks import check_frame
from recsys.training.evaluate import evaluate_on_window
from recsys.training.event_log import make_log
from recsys.training.fit import fit_model
from recsys.training.run import Run

HARM = 0.01  # of the others' recall
Columns = dict[str, list[object]]


@dataclass(frozen=True)
class Judged:
    """What came of poisoned events."""

    failed_checks: list[str]
    clean_recall: float
    poisoned_recall: float  # of the same positions: the others'

    @property
    def harm(self) -> float:
        return 1 - self.poisoned_recall / self.clean_recall

    def plain(self) -> dict[str, object]:
        return {
            "failed_checks": self.failed_checks,
            "others_recall@20_clean": round(self.clean_recall, 4),
            "others_recall@20_if_it_were_learned": round(self.poisoned_recall, 4),
            "harm": round(self.harm, 4),
        }


def loud_user(folder: Path, events: int, share: float = 0.5) -> Fault:
    """One user sends a `share` of all events: with a half, as many as all others together."""
    clean, rng = _clean(events), np.random.default_rng(2)
    end_us = _learned_until(folder, clean)
    count = round(clean.num_rows * share / (1 - share))
    times = np.sort(rng.integers(end_us - 10 * DAY_US, end_us, count))
    items = [f"P{n:04d}" for n in rng.integers(1, 4, count)]
    judged = _judge(folder, clean, _rows(["loud"] * count, items, times, clean.schema))
    return _fault(f"one user sends {share:.0%} of {clean.num_rows + count:,} events", judged)


def many_bots(folder: Path, events: int, bots: int = 1_000) -> Fault:
    """A thousand bots click one item, three times each, in the two days before the window that is judged."""
    clean, rng = _clean(events), np.random.default_rng(3)
    count, end_us = bots * 3, _learned_until(folder, clean)
    times = np.sort(rng.integers(end_us - 2 * DAY_US, end_us, count))
    users = [f"bot-{n % bots}" for n in range(count)]
    judged = _judge(folder, clean, _rows(users, ["P0001"] * count, times, clean.schema))
    return _fault(f"{bots:,} bots click one item beside {clean.num_rows:,} events", judged)


def _fault(name: str, judged: Judged) -> Fault:
    return Fault(name, bool(judged.failed_checks) or judged.harm < HARM, judged.plain())


def _now_us() -> int:
    return to_us(datetime.now(UTC))


def _learned_until(folder: Path, clean: pa.Table) -> int:
    """Where the window that judges begins: what comes later is not learned."""
    settings = small_settings(folder / "models")
    log = make_log(frame_from_table(clean), settings)
    return cut_for_share(log.sequences, settings.evaluation.window_share)


def _clean(events: int) -> pa.Table:
    return pa.concat_tables(shop_of(events, _now_us()).events())


def _rows(users: list[str], items: list[str], times: np.ndarray, schema: pa.Schema) -> pa.Table:
    given: Columns = {
        "user_id": list(users),
        "item_id": list(items),
        "event_type": ["view"] * len(users),
        "timestamp_us": times.tolist(),
        "event_id": [f"poison-{n}" for n in range(len(users))],
    }
    columns = [
        pa.array(given[field.name], field.type)
        if field.name in given
        else pa.array(np.arange(len(users)) + 10**9, field.type)
        if field.name == "position"
        else pa.nulls(len(users), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _judge(folder: Path, clean: pa.Table, poison: pa.Table) -> Judged:
    settings = small_settings(folder / "models")
    both = frame_from_table(pa.concat_tables([clean, poison]))
    failed = [check.name for check in check_frame(both, settings, None) if not check.passed]
    log = make_log(frame_from_table(clean), settings)
    cut_us = cut_for_share(log.sequences, settings.evaluation.window_share)

    def recall(table: pa.Table, chosen: Settings) -> float:
        now = datetime.now(UTC)
        learned_from = make_log(frame_from_table(table), chosen)
        fitted = fit_model(learned_from, chosen, new_version(now), cut_us, Run(now))
        evaluation = evaluate_on_window(log, fitted.bundle, None, cut_us, chosen)
        return evaluation.metrics["served"]["recall@20"]

    together = pa.concat_tables([clean, poison])
    return Judged(failed, recall(clean, settings), recall(together, settings))
