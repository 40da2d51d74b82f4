"""bench conversions: what it costs to attribute conversions to answers, and to report on them.

Answers of 20 items over 30 days and as many purchases as asked for, half of which name their answer, put
straight into the tables -> all of them attributed, as the refresh job does -> the job again with nothing
new -> the report by each of its columns. All in processor time: this process's, and on PostgreSQL that of
the connection's process on the same machine too.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import orjson
from sqlalchemy import Table, text

from recsys.config import Settings
from recsys.events.identity import user_bucket
from recsys.events.times import DAY_US, HOUR_US, to_us
from recsys.ops.conversions import attribute_conversions
from recsys.progress import Say, quiet
from recsys.storage.dashboard.conversion_figures import By, conversion_report
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities.answer_count_rows import WHOLE, CountKey, add_counts
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import events, impressions, items

DAYS, SHOWN, ITEMS, CATEGORIES = 30, 20, 10_000, 50
ANSWERS_A_USER = 10
SCENARIOS, VERSIONS = ("home", "product", "cart", "mail"), ("v1", "v2", "v3")
ARMS, SOURCES = ("champion", "control"), ("lstm", "transitions", "popular")
PART = 10_000
TIMES = 3  # of each report


def run_conversions(
    answers: int, conversions: int, seed: int, now: datetime, url: str | None, say: Say = quiet
) -> dict[str, Any]:
    """The figures of one run; see this module's text."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(url or f"sqlite:///{Path(folder) / 'bench.db'}")
        if migrate.current(database) is not None:
            migrate.downgrade(database, "base")
        migrate.upgrade(database)
        _fill(database, answers, conversions, np.random.default_rng(seed), to_us(now))
        say(f"{answers:,} answers and {conversions:,} conversions stored")
        settings = Settings()
        first = _ms(database, lambda: attribute_conversions(settings, database, now))
        say(f"attributed in {first / 1000:.1f} s")
        again = _ms(database, lambda: attribute_conversions(settings, database, now))
        until = to_us(now)
        reports = {by: _report_ms(database, by, until) for by in get_args(By)}
        with database.connect() as connection:
            rows = conversion_report(connection, 0, until, ["scenario"], "")
        database.close()
    return {
        "answers": answers,
        "conversions": conversions,
        "database": database.dialect,
        "attributed": round(sum(row.found.conversions for row in rows)),
        "attribute_ms_per_1000": round(first / conversions * 1000, 1),
        "attribute_again_ms": round(again, 1),
        "report_ms": reports,
    }


def _report_ms(database: Database, by: By, until_us: int) -> float:
    def report() -> None:
        with database.connect() as connection:
            if database.dialect == "postgresql":  # else its helpers' time would not be seen
                connection.execute(text("SET max_parallel_workers_per_gather = 0"))
            conversion_report(connection, until_us - DAYS * DAY_US, until_us, [by], "")

    return round(statistics.median(_ms(database, report) for _ in range(TIMES)), 1)


def _ms(database: Database, work: Callable[[], object]) -> float:
    """Milliseconds of processor time."""
    with database.connect() as connection:
        server = _server_process(connection)
    started = _spent(server)
    work()
    return (_spent(server) - started) * 1e3


def _server_process(connection: Connection) -> Path | None:
    """The figures of the PostgreSQL process of the pool's connection, where it runs on this machine."""
    if connection.dialect.name != "postgresql":
        return None
    number = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    found = Path(f"/proc/{number}/stat")
    return found if found.is_file() else None


def _spent(server: Path | None) -> float:
    """Seconds of processor time so far."""
    own = time.process_time()
    if server is None:
        return own
    fields = server.read_text().rpartition(")")[2].split()
    user, system = fields[11:13]  # 14 and 15 of proc_pid_stat(5)
    return own + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _fill(
    database: Database, answers: int, conversions: int, rng: np.random.Generator, now_us: int
) -> None:
    # Older than what a run of the job looks at again.
    answered_at = np.sort(rng.integers(now_us - DAYS * DAY_US, now_us - DAY_US, answers))
    owners = rng.integers(max(1, answers // ANSWERS_A_USER), size=answers)
    bought = set(rng.choice(answers, conversions, replace=False).tolist())
    first = rng.integers(ITEMS, size=answers).tolist()
    sources = [SOURCES[place % len(SOURCES)] for place in range(SHOWN)]
    of_sources = Counter([WHOLE, *sources])
    counted: Counter[CountKey] = Counter()

    def item_rows() -> Iterator[dict[str, Any]]:
        for number in range(ITEMS):
            categories = orjson.dumps([f"category {number % CATEGORIES}"]).decode()
            yield {
                "item_id": f"i{number}",
                "categories": categories,
                "created_at_us": now_us,
                "updated_at_us": now_us,
            }

    def answer_rows() -> Iterator[dict[str, Any]]:
        for number, at_us in enumerate(answered_at.tolist()):
            shown = [(first[number] + 97 * place) % ITEMS for place in range(SHOWN)]
            if number in bought:
                sold.append((number, f"i{shown[number % SHOWN]}"))
            held = [[f"i{item}", one, 0.5] for item, one in zip(shown, sources, strict=True)]
            version, arm = VERSIONS[number % 3], ARMS[number % 20 == 0]
            scenario = SCENARIOS[number % 4]
            for source, times in of_sources.items():
                counted[at_us - at_us % HOUR_US, version, arm, scenario, source] += times
            yield {
                "recommendation_id": f"answer-{number:012}",
                "created_at_us": at_us,
                "user_id": f"user-{owners[number]}",
                "model_version": version,
                "scenario": scenario,
                "arm": arm,
                "items": orjson.dumps(held).decode(),
            }

    def event_rows() -> Iterator[dict[str, Any]]:
        for number, item_id in sold:
            user_id = f"user-{owners[number]}"
            at_us = int(answered_at[number]) + HOUR_US
            yield {
                "user_bucket": user_bucket(user_id),
                "user_id": user_id,
                "item_id": item_id,
                "event_type": "purchase",
                "timestamp_us": at_us,
                "event_id": f"event-{number}",
                "value": float(10 + number % 90),
                "recommendation_id": f"answer-{number:012}" if number % 2 else None,
                "received_at_us": at_us,
            }

    sold: list[tuple[int, str]] = []
    for table, rows in ((items, item_rows()), (impressions, answer_rows()), (events, event_rows())):
        _insert(database, table, rows)
    with database.begin() as connection:
        add_counts(connection, counted, "shown")
    with database.begin() as connection:
        connection.execute(text("ANALYZE"))


def _insert(database: Database, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == PART:
            with database.begin() as connection:
                connection.execute(table.insert(), part)
            part = []
    if part:
        with database.begin() as connection:
            connection.execute(table.insert(), part)
