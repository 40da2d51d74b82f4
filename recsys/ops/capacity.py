"""What a shop of some size needs, worked out from measured costs: `recsys plan` and docs/scaling.md.

Arithmetic alone: where the costs come from is the caller's. What nobody measured is not guessed; what
is a choice, such as how full cores may be, is a constant with its name here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.config import TrainingSettings

MONTH_SECONDS = 30 * 86_400
PEAK = 4.0  # events at the peak, as a multiple of their mean
FULL = 0.6  # share of a core's time that answers and posts may take at the peak
NIGHT_HOURS = 6.0  # for a warm training; schedule.timeout_minutes is as long
DAY_HOURS = 24.0  # for a cold training
MAX_ANSWER_MS = 50.0  # of processor time, beyond which an answer is too slow to be waited for
MAX_DATABASE_REQUESTS = 20_000.0  # a second; past it docs/scaling.md asks for standbys
GIB, MIB = 2.0**30, 2.0**20


@dataclass(frozen=True)
class Costs:
    """What was measured on one machine."""

    source: str  # where and when
    cores: int  # of that machine; trainings and files used them all
    training_events: float  # a second and pass
    file_events: float  # a second, from the database to sequence files
    import_events: float  # a second
    answer_ms: float  # of a core, the database's share included, but for the scan of the items
    item_ns: float  # of a core, for each item that an answer scans
    post_ms: float  # of a core, for an event that is posted alone
    event_bytes: float  # in the database, indexes included


# docs/benchmarks.md: two cores with AVX2 and PostgreSQL, the load generator among them, 50,000 items.
SHIPPED = Costs(
    source="docs/benchmarks.md, two cores without a GPU",
    cores=2,
    training_events=33_000,
    file_events=1_000_000,
    import_events=25_000,
    answer_ms=3.6,
    item_ns=13.0,
    post_ms=2.4,
    event_bytes=376,
)

# The same for every machine; docs/benchmarks.md.
FILE_EVENT_BYTES = 36  # of sequence files
WORKER_MIB = 180  # of a serving worker's own, after 60,000 answers
LIVE_EVENT_BYTES = 150.0  # in each worker
ITEM_BYTES = 132  # of the item table in int8, which all workers share
TRAINING_MIB, TRAINING_ITEM_BYTES, RANKER_EVENT_BYTES = 680, 1_540, 250


@dataclass(frozen=True)
class Shop:
    """What a plan is asked for."""

    events: int  # a month
    items: int
    requests: float  # a second at the peak
    months: int = 3  # that are kept and learned from

    @property
    def kept(self) -> int:
        return self.events * self.months


@dataclass(frozen=True)
class Plan:
    """What the shop needs."""

    workers: int
    serving_cores: int
    answer_ms: float  # of a core
    posted_per_second: float  # events at the peak
    worker_mib: float  # of each worker's own
    serving_gib: float  # of all of them, with the item table that they share
    database_gib: float
    files_gib: float
    import_hours: float  # of what is kept, once
    files_minutes: float  # the first time
    cold_hours: float  # on one machine as it was measured
    warm_hours: float
    training_gib: float  # of memory, of each rank
    training_machines: int  # such machines that train a night and, each week, a day
    notes: tuple[str, ...] = ()  # where the design's limits are passed


def plan(shop: Shop, costs: Costs, training: TrainingSettings, live_events: int) -> Plan:
    """Work out what `shop` needs; `live_events`: serving.live_events."""
    answer_ms = costs.answer_ms + shop.items * costs.item_ns / 1e6
    posted = shop.events / MONTH_SECONDS * PEAK
    busy_cores = (shop.requests * answer_ms + posted * costs.post_ms) / 1e3
    workers = max(1, math.ceil(busy_cores / FULL))
    # Two days: a training a night, and the day before a version's data ended.
    live = min(live_events, 2 * shop.events / 30)
    worker_mib = WORKER_MIB + live * LIVE_EVENT_BYTES / MIB
    item_mib = shop.items * ITEM_BYTES / MIB
    cold_hours = _hours(shop.kept * cold_passes(training), costs.training_events)
    warm_hours = _hours(shop.kept * warm_passes(training), costs.training_events)
    learned = min(shop.kept, training.ranker_events)
    training_bytes = shop.items * TRAINING_ITEM_BYTES + learned * RANKER_EVENT_BYTES
    return Plan(
        workers=workers,
        serving_cores=workers,
        answer_ms=answer_ms,
        posted_per_second=posted,
        worker_mib=worker_mib,
        serving_gib=(workers * worker_mib + item_mib) * MIB / GIB,
        database_gib=shop.kept * costs.event_bytes / GIB,
        files_gib=shop.kept * FILE_EVENT_BYTES / GIB,
        import_hours=_hours(shop.kept, costs.import_events),
        files_minutes=_hours(shop.kept, costs.file_events) * 60,
        cold_hours=cold_hours,
        warm_hours=warm_hours,
        training_gib=TRAINING_MIB * MIB / GIB + training_bytes / GIB,
        training_machines=max(
            1, math.ceil(warm_hours / NIGHT_HOURS), math.ceil(cold_hours / DAY_HOURS)
        ),
        notes=tuple(_notes(shop, answer_ms, cold_hours)),
    )


def cold_passes(training: TrainingSettings) -> int:
    """Passes over the events of a cold training, at most.

    >>> cold_passes(TrainingSettings())
    16
    """
    return training.epochs * 2 if training.refit else training.epochs + training.final_epochs


def warm_passes(training: TrainingSettings) -> int:
    """Passes of a warm training: one to catch up, then the others.

    >>> warm_passes(TrainingSettings())
    4
    """
    return 1 + (training.warm_epochs if training.refit else training.final_epochs)


def lines(found: Plan, costs: Costs) -> Sequence[tuple[str, str]]:
    """The plan in words: (what, how much)."""
    machine = f"{costs.cores} cores"
    return (
        ("answers: processor time of one", f"{found.answer_ms:.1f} ms"),
        ("events posted at the peak", f"{_number(found.posted_per_second)} a second"),
        ("serving workers, a core each", f"{found.workers:,}"),
        ("memory of a worker; of all", f"{found.worker_mib:,.0f} MiB; {_size(found.serving_gib)}"),
        ("database", _size(found.database_gib)),
        ("sequence files", _size(found.files_gib)),
        ("import of what is kept, once", _time(found.import_hours)),
        ("sequence files, the first time", _time(found.files_minutes / 60)),
        (f"cold training on {machine}", _time(found.cold_hours)),
        (f"warm training on {machine}", _time(found.warm_hours)),
        ("memory of a training, each rank", _size(found.training_gib)),
        (f"machines of {machine} that train", f"{found.training_machines:,}"),
    )


def _notes(shop: Shop, answer_ms: float, cold_hours: float) -> list[str]:
    found = []
    if answer_ms > MAX_ANSWER_MS:
        found.append(
            f"{shop.items:,} items: an answer scans them all, {answer_ms:,.0f} ms of a core; this "
            "design ends between one and ten million items"
        )
    if shop.requests > MAX_DATABASE_REQUESTS:
        found.append(
            f"{shop.requests:,.0f} requests a second: more than one PostgreSQL server reads, even "
            "with standbys (database.replica_url)"
        )
    if cold_hours > 7 * DAY_HOURS:
        found.append(
            "a cold training takes more than a week on one machine: sequences.max_days shortens it "
            "as much as ranks do (training.engine)"
        )
    return found


def _hours(events: float, rate: float) -> float:
    return events / rate / 3_600


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _size(gib: float) -> str:
    """A size of memory or disk.

    >>> _size(0.05), _size(3.26), _size(4_096)
    ('51 MiB', '3.3 GiB', '4.0 TiB')
    """
    if gib < 1:
        return f"{max(1, round(gib * 1_024))} MiB"
    return f"{gib:,.1f} GiB" if gib < 1_024 else f"{gib / 1_024:,.1f} TiB"


def _time(hours: float) -> str:
    """A length of time.

    >>> _time(0.0001), _time(0.5), _time(7.25), _time(80)
    ('under a minute', '30 min', '7.2 h', '3.3 days')
    """
    if hours * 60 < 1:
        return "under a minute"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"
