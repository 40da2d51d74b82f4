"""bench replay: a log played in the order of time, every position ranked as a request would have been.

The version is trained on what came before the cut, as `recsys train` does, and anew every so often in
the time of the log. Positions of unknown items count like all others.

Legend: P positions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recsys.config import Settings
from recsys.errors import NotEnoughDataError
from recsys.events.array_types import BoolArray, Float64Array, Int64Array
from recsys.events.time_split import events_before
from recsys.events.times import HOUR_US
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle, compacted
from recsys.models.live_log import LiveLog
from recsys.models.version_facts import VersionFacts
from recsys.training.evaluate import window_positions
from recsys.training.event_log import EventLog, window_start
from recsys.training.fit import fit_model
from recsys.training.replay import SERVED, Replay, replayed_ranks
from recsys.training.report import Bootstrap, difference, recall, reciprocal_rank, rounded
from recsys.training.run import Run
from recsys.training.window_pass import learn_window

PEERS = {"session_knn": "session_knn", "transitions": "transitions", "popular_hour": "trending"}
K = 20
DRAWS = 1_000


@dataclass(frozen=True)
class ReplayOptions:
    """How a log is played."""

    cut_us: int
    delay_us: int  # after which what other visitors did is known
    retrain_us: int = 0  # between trainings, in the time of the log; 0 = one at the cut
    peers: bool = False


def run_replay(
    log: EventLog, settings: Settings, options: ReplayOptions, run: Run
) -> dict[str, Any]:
    """Play the log from the cut on. Raises NotEnoughDataError where a side of the cut holds too little."""
    started = time.perf_counter()
    played = _Played()
    champion: Bundle | None = None
    end_us = int(log.sequences.timestamps_us.max()) + 1
    step_us = options.retrain_us or end_us - options.cut_us
    for from_us in range(options.cut_us, end_us, max(1, step_us)):
        champion = trained_version(log, settings, from_us, champion, run)
        until_us = min(end_us, from_us + step_us)
        played.add(log, champion, from_us, until_us, options)
        run.say(f"played {played.positions:,} positions")
    if played.positions == 0:
        raise NotEnoughDataError("no event after the cut has one before it in its sequence")
    return {
        **played.report(settings.training.seed),
        "delay_seconds": options.delay_us / 1e6,
        "retrain_hours": options.retrain_us / HOUR_US,
        "seconds": round(time.perf_counter() - started, 1),
    }


def trained_version(
    log: EventLog, settings: Settings, until_us: int, champion: Bundle | None, run: Run
) -> Bundle:
    """The version that a training at `until_us` would make of what came before."""
    before = replace(log, sequences=events_before(log.sequences, until_us))
    at = datetime.fromtimestamp(until_us / 1e6, UTC)
    window_us = window_start(before, settings, champion)
    fitted = fit_model(
        before, settings, f"at-{until_us}", window_us, replace(run, now=at), champion
    )
    bundle, window = learn_window(before, fitted, settings, run)
    learned_us = until_us if window.learned else window_us
    bundle = replace(bundle, facts=VersionFacts(data_end_us=learned_us - 1))
    return compacted(bundle, settings.serving.item_matrix)


class _Played:
    """Ranks of all positions played so far, by system."""

    def __init__(self) -> None:
        self.positions = 0
        self._ranks: dict[str, list[Int64Array]] = {}
        self._owners: list[Int64Array] = []
        self._unknown: list[BoolArray] = []
        self._users: list[BoolArray] = []
        self._hours: list[Int64Array] = []
        self._events, self._seconds, self._bytes = 0, 0.0, 0

    def add(
        self, log: EventLog, bundle: Bundle, from_us: int, until_us: int, options: ReplayOptions
    ) -> None:
        """Play the positions in [from_us, until_us) by `bundle`, with and without the live log."""
        positions = window_positions(log, bundle, from_us, until_us)
        if len(positions) == 0:
            return
        peers = tuple(PEERS.values()) if options.peers else ()
        since_us = bundle.facts.data_end_us + 1
        live = Replay(log, bundle, since_us, options.delay_us)
        for name, ranks in replayed_ranks(live, positions, rankers=peers).items():
            self._put(name, "live", ranks)
        self._note(live.live, live.seconds)
        still = Replay(log, bundle, since_us, options.delay_us)
        known = tuple(name for name in peers if name in bundle.rankers)
        for name, ranks in replayed_ranks(still, positions, live=False, rankers=known).items():
            self._put(name, "still", ranks)
        self.positions += len(positions)
        self._owners.append(positions.owners)
        self._unknown.append(positions.targets < FIRST_ITEM)
        users = np.array([key.startswith("u:") for key in log.sequences.keys], np.bool_)
        self._users.append(users[positions.owners])
        times = log.sequences.timestamps_us[positions.histories.ends]
        self._hours.append((times - since_us) // HOUR_US)

    def report(self, seed: int) -> dict[str, Any]:
        """Figures of every system, with intervals over owners."""
        ranks = {name: np.concatenate(parts) for name, parts in self._ranks.items()}
        owners, unknown = np.concatenate(self._owners), np.concatenate(self._unknown)
        users, hours = np.concatenate(self._users), np.concatenate(self._hours)
        bootstrap = Bootstrap(owners, DRAWS, seed)
        live = ranks["served_live"]
        groups = {"users": users, "sessions": ~users, "known_targets": ~unknown}
        return rounded(
            {
                "positions": self.positions,
                "unknown_share": float(unknown.mean()),
                "results": {n: _figures(found, unknown, bootstrap) for n, found in ranks.items()},
                "served_live_minus": {
                    name: difference(live, found, owners, DRAWS, seed)
                    for name, found in ranks.items()
                    if name != "served_live"
                },
                "by_hour": [
                    {"hour": int(hour), **_both(ranks, hours == hour)} for hour in np.unique(hours)
                ],
                "by_group": {n: _both(ranks, mask) for n, mask in groups.items() if mask.any()},
                "update_ms_per_event": 1e3 * self._seconds / max(1, self._events),
                "memory_mib": self._bytes / 2**20,
            }
        )

    def _put(self, name: str, how: str, ranks: Int64Array) -> None:
        label = {**{v: k for k, v in PEERS.items()}, SERVED: SERVED}[name]
        self._ranks.setdefault(f"{label}_{how}", []).append(ranks)

    def _note(self, live: LiveLog, seconds: float) -> None:
        self._events += len(live)
        self._seconds += seconds
        self._bytes = max(self._bytes, live.bytes)


def _values(ranks: Int64Array) -> Float64Array:
    """(P, 2): recall@20 and MRR@20 of each position."""
    return np.stack((recall(ranks, K), reciprocal_rank(ranks, K)), axis=1)


def _figures(ranks: Int64Array, unknown: BoolArray, bootstrap: Bootstrap) -> dict[str, float]:
    """Both figures over all positions, and recall over those of unknown targets, with intervals."""
    values = _values(ranks)
    found = {}
    for mask, names in ((None, ("recall@20", "mrr@20")), (unknown, ("unknown_recall@20",))):
        chosen = values if mask is None else values[mask]
        if len(chosen) == 0:
            continue
        low, high = np.percentile(bootstrap.means(values, mask), (2.5, 97.5), axis=0)
        for at, name in enumerate(names):
            found[name] = float(chosen[:, at].mean())
            found[f"{name}_low"], found[f"{name}_high"] = float(low[at]), float(high[at])
    return found


def _both(ranks: Mapping[str, Int64Array], mask: BoolArray) -> dict[str, Any]:
    """What is served, live and still, over some positions."""
    found: dict[str, Any] = {"positions": int(mask.sum())}
    for name in ("served_live", "served_still"):
        recall_mean, mrr_mean = _values(ranks[name][mask]).mean(axis=0).tolist()
        found[name] = {"recall@20": recall_mean, "mrr@20": mrr_mean}
    return found
