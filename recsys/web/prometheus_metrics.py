"""What Prometheus reads at /metrics, over all workers.

Under `recsys serve` the workers write into files of one folder (PROMETHEUS_MULTIPROC_DIR), which is
set before this module is imported. Labels are bounded: routes are rules, not addresses.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
import threading
import time
from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import REGISTRY as OWN
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

from recsys.models.bundle import Bundle
from recsys.serving.active_model import Models
from recsys.serving.live_state import LiveState
from recsys.storage.entities.job_rows import LastEnds
from recsys.storage.entities.live_quality_rows import SYSTEMS, LiveQuality
from recsys.storage.entities.stream_rows import PartitionRow

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OUTCOMES = ("accepted", "duplicate", "rejected")  # of a posted event
MAX_TYPES = 32  # event types with a label of their own
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
LAG_BUCKETS = (0.1, 1, 10, 60, 600, 3_600, 86_400, 604_800)
FIRST_BYTES = 65_536  # of a process's file, which doubles when it is full
MEMORY_BYTES = 2**26  # set aside for figures without a file; what is never written takes none

log = structlog.get_logger(__name__)


class ReservedFigures(MmapedDict):
    """A process's figures in a file whose room on the disk is taken before it is written to.

    A page of a mapped file for which the disk has no room ends the process (SIGBUS). Without room the
    figures go on in memory, and /metrics has of this process what its file held until then.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            with open(filename, "ab") as file:
                if file.tell() == 0:
                    os.posix_fallocate(file.fileno(), 0, FIRST_BYTES)
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError:
            with suppress(OSError):
                Path(filename).unlink()  # one of no length cannot be read
            self._positions: dict[str, int] = {}
            self._used = 8
            self._go_on_in_memory(struct.pack("i4x", self._used))

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + 32 > self._capacity:
            try:
                os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            except OSError:
                held = bytes(self._m)
                self.close()  # type: ignore[no-untyped-call]
                self._go_on_in_memory(held)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _go_on_in_memory(self, held: bytes) -> None:
        log.warning("the disk has no room for figures: /metrics lacks those of a process")
        self._f: Any = io.BytesIO()  # is closed in place of a file
        self._m = mmap.mmap(-1, MEMORY_BYTES)
        self._m[: len(held)] = held
        self._capacity = MEMORY_BYTES


values.MmapedDict = ReservedFigures  # type: ignore[attr-defined]

requests = Counter("recsys_requests", "Requests answered", ["method", "route", "status"])
seconds = Histogram("recsys_request_seconds", "Time to answer", ["route"], buckets=BUCKETS)
items = Counter("recsys_recommended_items", "Items recommended", ["source"])
arms = Counter("recsys_answers", "Recommendation answers", ["arm"])
fallbacks = Counter("recsys_fallbacks", "Answers not from the model's ranking alone", ["reason"])
empty = Counter("recsys_empty_answers", "Recommendation answers without an item")
events = Counter("recsys_events", "Events posted", ["outcome"])
lag = Histogram(
    "recsys_ingestion_lag_seconds",
    "From an event's time to its receipt",
    ["event_type"],
    buckets=LAG_BUCKETS,
)
limited = Counter("recsys_rate_limited", "Requests refused for their rate")
histories = Counter(
    "recsys_replica_reads",
    "Histories asked of the standby: read there, or at the primary as it was behind or away",
    ["outcome"],
)
lost = Counter("recsys_impressions_lost", "Answers that could not be stored")
waiting = Gauge("recsys_impressions_waiting", "Answers not stored yet", multiprocess_mode="livesum")
cached = Gauge(
    "recsys_cache_bytes",
    "What a worker keeps in memory between requests, by cache",
    ["cache"],
    multiprocess_mode="livemax",
)
live_events = Gauge(
    "recsys_live_events", "Events in a worker's live state", multiprocess_mode="livemax"
)
live_bytes = Gauge("recsys_live_bytes", "What that takes", multiprocess_mode="livemax")
live_age = Gauge(
    "recsys_live_age_seconds",
    "Since a worker's live state held every event that was stored",
    multiprocess_mode="livemax",
)

_types: set[str] = set()
_types_lock = threading.Lock()


def begin(posted: bool) -> None:
    """Figures that start at none, so that nothing coming is told from nothing being there.

    `posted`: whether events come by POST.
    """
    if posted:
        for outcome in OUTCOMES:
            events.labels(outcome)


def observe_lags(event_type: str, lags: Sequence[float]) -> None:
    """Accepted events of one type, by seconds from their time to their receipt.

    As `observe` of each, but what changes in the process's file is written once.
    """
    found = lag.labels(_bounded(event_type))
    found._sum.inc(sum(lags))
    for place, number in Counted(bisect_left(found._upper_bounds, one) for one in lags).items():
        found._buckets[place].inc(number)


def note_live(live: LiveState) -> None:
    """What a worker's live state holds, and how old it is."""
    live_events.set(len(live.log))
    live_bytes.set(live.bytes)
    live_age.set(live.age_seconds)


@dataclass(frozen=True)
class StoredFigures:
    """What the database knows of the scheduler and its runs, and of live quality."""

    renewed_at_us: int | None  # when the leader last said that it leads
    runs: Sequence[tuple[str, str, int]]  # job, state, runs of the last day
    ends: Mapping[str, LastEnds]  # by job
    backups: bool  # whether they are scheduled
    backups_since_us: int | None  # since when, where a scheduler has seen that
    quality: LiveQuality | None  # of late; None where no position was ranked
    streams: Sequence[PartitionRow] = ()  # what `recsys consume` reads


def exposition(models: Models, stored: StoredFigures | None) -> bytes:
    """All figures in Prometheus' text format; `stored` is None where the database is away."""
    now = CollectorRegistry()
    now.register(_Ages(models))
    if stored is not None:
        now.register(_Scheduler(stored))
        if stored.streams:
            now.register(_Streams(stored.streams))
        if stored.quality is not None:
            now.register(_LiveQuality(stored.quality))
    kept = OWN
    if os.environ.get(FOLDER):
        kept = CollectorRegistry()
        kept.register(_AllProcesses())
    return generate_latest(kept) + generate_latest(now)


class _AllProcesses(Collector):
    """The figures of every process, which each writes to files of its own.

    prometheus_client opens a file and then gives it a length, and its reader takes a file without one
    for a damaged one. Such a file holds no figure yet, so it is left out.
    """

    def collect(self) -> Iterator[Metric]:
        files = [str(path) for path in Path(os.environ[FOLDER]).glob("*.db") if _has_length(path)]
        yield from multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]


def _has_length(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # of a process that has ended meanwhile
        return False


class _Ages(Collector):
    """The age of what serves, worked out when it is asked for: the same in every worker."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "recsys_model_age_seconds",
            "Since the newest event a model has learned",
            labels=["version", "arm"],
        )
        models = self._models
        for arm, bundle in (("champion", models.champion), ("control", models.control)):
            if bundle is not None:
                family.add_metric([bundle.version, arm], _age(bundle))
        yield family


class _Scheduler(Collector):
    """Whether somebody schedules, and how the last day's runs ended."""

    def __init__(self, stored: StoredFigures) -> None:
        self._stored = stored

    def collect(self) -> Iterator[GaugeMetricFamily]:
        renewed = self._stored.renewed_at_us
        if renewed is not None:
            yield GaugeMetricFamily(
                "recsys_scheduler_silence_seconds",
                "Since the leading scheduler last said that it leads",
                value=max(0.0, time.time() - renewed / 1e6),
            )
        family = GaugeMetricFamily(
            "recsys_runs_last_day", "Runs requested in the last day", labels=["job", "state"]
        )
        for job, state, number in self._stored.runs:
            family.add_metric([job, state], number)
        yield family
        failing = GaugeMetricFamily(
            "recsys_job_failing", "1 where the last run failed or took too long", labels=["job"]
        )
        for job, ends in self._stored.ends.items():
            failing.add_metric([job], int(ends.failing))
        yield failing
        if self._stored.backups:
            backup = self._stored.ends.get("backup")
            made_at_us = backup.succeeded_at_us if backup is not None else None
            made_at_us = made_at_us or self._stored.backups_since_us
            yield GaugeMetricFamily(
                "recsys_backup_age_seconds",
                "Since the backup job last made one, or was first scheduled; infinite where neither",
                value=math.inf if made_at_us is None else max(0.0, time.time() - made_at_us / 1e6),
            )


class _Streams(Collector):
    """How far behind the partitions of streams are, as their consumers wrote it down."""

    def __init__(self, rows: Sequence[PartitionRow]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        names = ["source", "topic", "partition"]
        lag = GaugeMetricFamily(
            "recsys_stream_lag_messages", "Messages a consumer is behind", labels=names
        )
        silence = GaugeMetricFamily(
            "recsys_stream_silence_seconds",
            "Since a consumer last said where it is; infinite where none did",
            labels=names,
        )
        missed = CounterMetricFamily(
            "recsys_stream_missed_messages",
            "Messages the broker had deleted before they were read",
            labels=names,
        )
        outcomes = CounterMetricFamily(
            "recsys_stream_rows", "Rows read from streams", labels=[*names, "outcome"]
        )
        for row in self._rows:
            labels = [row.source, row.topic, str(row.partition)]
            if row.lag is not None:
                lag.add_metric(labels, row.lag)
            reported = row.reported_at_us
            silent = math.inf if reported is None else max(0.0, time.time() - reported / 1e6)
            silence.add_metric(labels, silent)
            missed.add_metric(labels, row.missed)
            for outcome in ("accepted", "duplicates", "rejected", "left_out"):
                outcomes.add_metric([*labels, outcome], getattr(row, outcome))
        yield from (lag, silence, missed, outcomes)


class _LiveQuality(Collector):
    """What would have been answered just before each click of late."""

    def __init__(self, quality: LiveQuality) -> None:
        self._quality = quality

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = self._quality
        for name, told, figure in (
            ("recall", "Share of targets among the first 20 items", found.recall),
            ("mrr", "Mean of 1/rank of the targets, 0 beyond the first 20", found.mrr),
        ):
            family = GaugeMetricFamily(f"recsys_live_quality_{name}", told, labels=["system"])
            for system in SYSTEMS:
                family.add_metric([system], figure(system) or 0.0)
            yield family
        yield GaugeMetricFamily(
            "recsys_live_quality_positions", "Positions they rest on", value=found.positions
        )
        yield GaugeMetricFamily(
            "recsys_live_quality_unknown_share",
            "Share of targets that no training had seen",
            value=found.unknown_share,
        )


def forget_process(pid: int) -> None:
    """A worker has gone."""
    if os.environ.get(FOLDER):
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _age(bundle: Bundle) -> float:
    learned_us = bundle.facts.data_end_us
    return time.time() - learned_us / 1e6 if learned_us else 0.0


def _bounded(event_type: str) -> str:
    if event_type not in _types:
        with _types_lock:
            if len(_types) >= MAX_TYPES:
                return "other"
            _types.add(event_type)
    return event_type
