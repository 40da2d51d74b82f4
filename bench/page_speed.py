"""bench pages: server time and size of the dashboard's pages over a large log.

A network is learned from a small part; then the log grows, is counted as the refresh job would, and every
page is asked for a few times within one process. Times are the server's alone, medians; sizes are of the
page, gzipped, with all that it loads for the first one.
"""

from __future__ import annotations

import gzip
import logging
import re
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from bench.import_speed import write_log
from bench.servers import small_settings
from recsys.commands import credentials
from recsys.config import Settings
from recsys.demo.simulation import Shop, ShopSize
from recsys.events.times import to_us
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.ops.upkeep import count_activity, report_quality
from recsys.pipeline import import_events, train
from recsys.progress import Say, quiet
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows, version_rows
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.entities.event_import import import_chunks
from recsys.storage.schema import migrate
from recsys.training.run import Run
from recsys.web.app import create_app

LEARNED_EVENTS = 50_000
TIMES = 5
NAME, PASSWORD = "bench", "only for this measurement"
SEARCH = "shopper-0000"


def run_pages(
    events: int, seed: int, now: datetime, url: str | None, say: Say = quiet
) -> dict[str, Any]:
    """Milliseconds and KiB of each page with about `events` events stored."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = Database(url or f"sqlite:///{folder}/bench.db")
        if migrate.current(database) is not None:
            migrate.downgrade(database, "base")
        migrate.upgrade(database)
        settings = small_settings(folder / "models", auth={"session_hours": 24})
        started = time.perf_counter()
        _fill(settings, database, folder, events, seed, now)
        say(f"stored after {time.perf_counter() - started:.0f} s")
        started = time.perf_counter()
        count_activity(settings, database, now)
        report_quality(settings, database, now, say)
        refreshed = time.perf_counter() - started
        started = time.perf_counter()
        count_activity(settings, database, now)
        again = time.perf_counter() - started
        say(f"counted after {refreshed:.0f} s")
        pages = _measure(settings, database, to_us(now))
        database.close()
    return {
        "events": events,
        "database": database.dialect,
        "refresh_seconds": round(refreshed, 2),
        "refresh_again_seconds": round(again, 3),
        "slowest_ms": max(page["ms"] for page in pages.values()),
        "pages": pages,
    }


def _fill(
    settings: Settings, database: Database, folder: Path, events: int, seed: int, now: datetime
) -> None:
    now_us = to_us(now)
    small, large = folder / "small.parquet", folder / "large.parquet"
    write_log(small, min(LEARNED_EVENTS, events // 2), seed, now_us)
    import_events(database, small, ReadOptions(), now)
    train(settings, database, Run(now), force=True)
    credentials.create_account(database, CLI, NAME, PASSWORD, "admin", now_us)
    with database.begin() as connection:
        item_rows.put_items(connection, Shop(ShopSize(), seed, now_us).items, now_us)
    write_log(large, events, seed + 1, now_us)
    import_chunks(database, read_events(large, ReadOptions(), now_us), large.name, now_us)


def _measure(settings: Settings, database: Database, now_us: int) -> dict[str, dict[str, Any]]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    app = create_app(settings, database)
    client = app.test_client()
    login = client.get("/admin/login").get_data(as_text=True)
    token = re.search(r'name="csrf_token" value="([^"]+)"', login)
    assert token is not None
    form = {"name": NAME, "password": PASSWORD, "csrf_token": token.group(1)}
    assert client.post("/admin/login", data=form).status_code == 303
    with database.connect() as connection:
        version = version_rows.list_versions(connection, 1)[0].version
    addresses = {
        "overview, 24 h": "overview?range=24h",
        "overview, 90 d": "overview?range=90d",
        "models": "models",
        "model": f"models/{version}",
        "jobs": "jobs",
        "users": "users",
        "users, searched": f"users?q={SEARCH}",
        "user": "users/one?user_id=shopper-000001",
        "items": "items",
        "items, searched": "items?q=P00",
        "item": "items/one?item_id=P0001",
        "exposure": "items/exposure",
        "what-if": "what-if?item=P0001&item=P0002",
        "data quality": "data-quality?range=30d",
        "quarantine": "data-quality/quarantine",
        "keys": "keys",
        "settings": "settings",
        "audit": "audit",
        "accounts": "accounts",
    }
    found: dict[str, dict[str, Any]] = {}
    for page, address in addresses.items():
        spent = []
        for _ in range(TIMES):
            started = time.perf_counter()
            answer = client.get(f"/admin/{address}")
            spent.append((time.perf_counter() - started) * 1e3)
            assert answer.status_code == 200, (page, answer.status_code)
        found[page] = {
            "ms": round(float(np.median(spent)), 1),
            "first_ms": round(spent[0], 1),
            "kib": round(len(gzip.compress(answer.data)) / 1_024, 1),
        }
        if page == "overview, 24 h":
            loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.get_data(as_text=True))
            parts = [gzip.compress(_whole(client, one)) for one in dict.fromkeys(loaded)]
            found[page]["with_assets_kib"] = round(
                found[page]["kib"] + sum(map(len, parts)) / 1_024, 1
            )
    app.extensions["recsys"].close()
    return found


def _whole(client: Any, address: str) -> bytes:
    with client.get(address) as answer:
        found: bytes = answer.data
    return found
