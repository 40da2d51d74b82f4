"""A long mixed load while everything that changes the service goes on, and what clocks may do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

import orjson

from bench.drills.fault_stage import Fault, Stage, ask, resident
from bench.load import open_loop
from bench.servers import running
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, version_rows

# The scheduler's own triggers, asked in a process of their own: walking a year in steps of a look, with a
# clock that is set back and forward an hour now and then, each slot of each day must come once. Before
# that, the service's own clock stamps events while the machine's is set back and forward.
CLOCK = """
import json, random, sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo
from jobs.slots import slots
from recsys.config import load_settings
from recsys.events.times import SteadyClock
rng, found = random.Random(4), {"slots": 0, "duplicate_slots": 0, "missed_slots": 0, "clock_steps": 0}
ticks = wall = 1_700_000_000 * 10**9
clock, stamp, found["events"], found["events_out_of_order"] = SteadyClock(lambda: wall, lambda: ticks), 0, 0, 0
for _ in range(100_000):
    spent = rng.randrange(1, 60 * 10**9)
    ticks, wall = ticks + spent, wall + spent
    if rng.random() < 0.02:
        wall += rng.choice((-1, 1)) * 3_600 * 10**9
        found["clock_steps"] += 1
    before, stamp = stamp, clock()
    found["events"] += 1
    found["events_out_of_order"] += stamp < before
for name in sys.argv[1:]:
    zone = ZoneInfo(name)
    for line in ("0 3 * * *", "30 2 * * *", "59 23 * * *", "0 0 * * *"):
        own = slots(load_settings(schedule={"timezone": name, "retrain": line}))["retrain"]
        start = datetime(2023, 12, 1, tzinfo=UTC)
        end = datetime(2025, 1, 10, tzinfo=UTC)
        now, claimed = start, []
        while now < end:
            seen = now
            if rng.random() < 0.02:
                seen += timedelta(hours=rng.choice((-1, 1)))
                found["clock_steps"] += 1
            due = own.last(claimed[-1] if claimed else start, seen)
            if due is not None:
                claimed.append(due)
            now += timedelta(minutes=40)
        days = [moment.astimezone(zone).date() for moment in claimed]
        first, last = min(days), max(days)
        wanted = {first + timedelta(days=n) for n in range((last - first).days + 1)}
        found["slots"] += len(wanted)
        found["duplicate_slots"] += len(days) - len(set(days))
        found["missed_slots"] += len(wanted - set(days))
print(json.dumps(found))
"""


TURNS = 200  # of ten requests each, before the first comes again
PRUNE_SECONDS = 60.0  # between two prunings that are asked for
RETENTION_DAYS = 21  # of the six weeks that the shop's log is long
STEERED = ("refresh", "retrain", "prune")  # the jobs that must have gone through beside the load
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")


def clocks(zones: Sequence[str] = ZONES) -> Fault:
    """A year of daily slots in some zones, with daylight saving, a leap day and a year's end."""
    command = [sys.executable, "-c", CLOCK, *zones]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    figures = orjson.loads(done.stdout)
    faults = ("duplicate_slots", "missed_slots", "events_out_of_order")
    held = not any(figures[name] for name in faults)
    return Fault("clock stepped an hour, daylight saving, year end, leap day", held, figures)


def _turn(stage: Stage, turn: int) -> list[bytes]:
    """Ten requests: seven reads, three clicks, of visitors that few other turns have."""
    shoppers = [(turn * 5 + n) % 100 + 1 for n in range(5)]
    clicks = [
        {"user_id": f"soaking-{(turn * 3 + n) % 97}", "item_id": f"P{(turn * 7 + n * 11) % 60:04d}"}
        for n in range(3)
    ]
    return [
        stage.with_sequence,
        *(stage.asks(f"/users/shopper-{n:06d}/recommendations?k=10") for n in shoppers),
        stage.asks("/items/popular"),
        *(stage.asks("/events", click) for click in clicks),
    ]


@contextmanager
def _pruning(stage: Stage, port: int) -> Iterator[Counter[int]]:
    """Prunings asked for while the block runs, the first at once; the statuses of the answers."""
    statuses: Counter[int] = Counter()
    over = Event()

    def ask_now_and_then() -> None:
        request = stage.asks("/jobs/prune/run", {})
        while not over.is_set():
            statuses[ask(port, request)] += 1
            over.wait(PRUNE_SECONDS)

    asker = Thread(target=ask_now_and_then)
    asker.start()
    try:
        yield statuses
    finally:
        over.set()
        asker.join()


def soak(stage: Stage, minutes: float, rate: float) -> Fault:
    """Mixed load beside a scheduler that refreshes, retrains, promotes and prunes.

    It holds where no request failed, memory grew by 5% at most, no run failed and each job has done
    its work at least once.
    """
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RECSYS_")},
        "RECSYS_DATABASE__URL": stage.url,
        "RECSYS_DATABASE__BUSY_TIMEOUT_SECONDS": "20",
        "RECSYS_REGISTRY__PATH": str(stage.registry),
        "RECSYS_REGISTRY__KEEP": "3",
        "RECSYS_EVENTS__RETENTION_DAYS": str(RETENTION_DAYS),
        "RECSYS_SCHEDULE__REFRESH_MINUTES": "0.25",
        "RECSYS_SCHEDULE__RETRAIN": "* * * * *",
        "RECSYS_PROMOTION__MIN_POSITIONS": "50",
        "RECSYS_PROMOTION__AUTO_ROLLBACK": "false",
        "RECSYS_MODEL__WIDTH": "16",
        "RECSYS_TRAINING__EPOCHS": "2",
        "RECSYS_TRAINING__THREADS": "1",
        # Half an hour's load of years' worth of such a shop's clicks is what these would stop.
        "RECSYS_TRAINING__MAX_SURGE": "1000000",
        "RECSYS_TRAINING__MAX_DRIFT": "1",
        "RECSYS_EVALUATION__BOOTSTRAP_DRAWS": "100",
        "RECSYS_LOGGING__LEVEL": "error",
    }
    patience = {"RECSYS_DATABASE__BUSY_TIMEOUT_SECONDS": "20"}
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "jobs"], env=environment, cwd=stage.registry
    )
    try:
        with running(stage.url, stage.registry, workers=2, **patience) as (port, server):
            mixed = [request for turn in range(TURNS) for request in _turn(stage, turn)]
            warm = open_loop(port, mixed, 8, min(30.0, minutes * 20), rate)
            before = resident(server)
            with _pruning(stage, port) as asked:
                load = open_loop(port, mixed, 8, minutes * 60, rate)
            after = resident(server)
    finally:
        scheduler.terminate()
        scheduler.wait(60)
    database = Database(stage.url)
    with database.connect() as connection:
        rows = job_rows.list_runs(connection, 1_000)
        promotions = len(version_rows.list_deployments(connection, 1_000)) - 1
    database.close()
    grown = after / before - 1
    runs = Counter((run.job, run.state) for run in rows)
    pruned: Counter[str] = Counter()
    for run in rows:
        if run.job == "prune" and run.outcome:
            pruned.update(run.outcome)
    # Cancelled is a slot that came while the one before it waited still.
    broken = [run for run in rows if run.state in ("failed", "timed_out")]
    failures = Counter(run.error for run in broken if run.error != job_rows.SCHEDULER_STOPPED)
    shown = load.plain()
    figures = {
        "minutes": minutes,
        "requests": len(load.latencies) + len(warm.latencies),
        "errors": load.errors + warm.errors,
        "p99_ms": shown["p99_ms"],
        "memory_mib": [before, after],
        "memory_growth": round(grown, 3),
        "runs": {f"{job} {state}": n for (job, state), n in sorted(runs.items())},
        "promotions": promotions,
        "prunings_asked": {str(status): n for status, n in sorted(asked.items())},
        "pruned": dict(pruned),
        "failures": dict(failures),  # but for those that the end of this run stopped
    }
    worked = all(runs[job, "succeeded"] for job in STEERED)
    held = load.errors + warm.errors == 0 and grown <= 0.05 and worked and not failures
    return Fault("mixed load with retraining, promotion and pruning", held, figures)
