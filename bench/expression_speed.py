"""bench expressions: what filters by expressions cost over a catalogue in memory.

A catalogue in SQLite -> the columns that three conditions name, read by the first request -> new
expressions over them, each asked once -> one of them asked again -> one item changed. `filter_ms` is
`ItemSnapshot.meeting_expression`, from the parsed expression to the set of items; `evaluate_ms` is the
arrays alone (`Expression.evaluate`). All in processor time of the one thread that does it.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from recsys.ingest.item_body import check_item
from recsys.progress import Say, quiet
from recsys.serving.item_snapshot import Catalogue
from recsys.steering.expressions.evaluation import Bindings
from recsys.steering.expressions.expression import parse
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.stamps import read_stamps
from recsys.storage.schema import migrate
from recsys.storage.schema.tables import items as item_table

PART = 20_000
BRANDS, DAYS, CATEGORIES = 5_000, 3_000, 200
DAY_US = 86_400_000_000
EXPRESSIONS = 40  # new ones that are timed


def run_expressions(items: int, seed: int, now_us: int, say: Say = quiet) -> dict[str, Any]:
    """The figures of one run; see this module's text."""
    rng = random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'bench.db'}")
        migrate.upgrade(database)
        _fill(database, items, rng, now_us)
        say(f"{items:,} items stored")
        catalogue, bindings = Catalogue(), Bindings(now_us, {}, {"brand": "brand 7"})
        asked = [parse(_three_conditions(rng), "filter") for _ in range(EXPRESSIONS + 1)]
        with database.connect() as connection:

            def meet(index: int) -> int:
                snapshot = catalogue.at(connection, read_stamps(connection).items)
                found = snapshot.meeting_expression(connection, asked[index], bindings)
                return len(found.item_ids)

            build_ms = _ms(lambda: meet(0))
            say(f"columns read in {build_ms / 1000:.1f} s")
            met_ms = [_ms(partial(meet, at)) for at in range(1, EXPRESSIONS + 1)]
            again_ms = min(_ms(lambda: meet(EXPRESSIONS)) for _ in range(5))
            columns_ms = _columns_ms(catalogue, connection, bindings, rng)
            held = catalogue.latest.cached_bytes()
        change = check_item({"item_id": "i1", "price": 1.0, "properties": {"brand": "changed"}})
        with database.begin() as connection:
            item_rows.put_items(connection, [change], now_us + 1)
        with database.connect() as connection:
            update_ms = _ms(lambda: meet(EXPRESSIONS))
        database.close()
    return {
        "items": items,
        "conditions": 3,
        "evaluate_ms": round(statistics.median(columns_ms), 2),
        "evaluate_ms_p95": round(sorted(columns_ms)[int(0.95 * len(columns_ms))], 2),
        "filter_ms": round(statistics.median(met_ms), 2),
        "filter_ms_p95": round(sorted(met_ms)[int(0.95 * len(met_ms))], 2),
        "again_ms": round(again_ms, 3),
        "build_seconds": round(build_ms / 1000, 1),
        "update_ms": round(update_ms, 1),
        "columns_mib": round(held["columns"] / 2**20, 1),
    }


def _columns_ms(
    catalogue: Catalogue, connection: Connection, bindings: Bindings, rng: random.Random
) -> list[float]:
    """Milliseconds of evaluating new expressions over the columns alone."""
    columns = catalogue.latest.columns(
        connection, parse(_three_conditions(rng), "filter"), bindings
    ).columns
    asked = [parse(_three_conditions(rng), "filter") for _ in range(EXPRESSIONS)]
    return [_ms(partial(one.evaluate, columns, bindings)) for one in asked]


def _three_conditions(rng: random.Random) -> str:
    """An expression of three conditions that was not asked before."""
    brands = ", ".join(f'"brand {rng.randrange(BRANDS)}"' for _ in range(2))
    return (
        f"item.price < {rng.uniform(10, 90):.6f} && !(item.brand in [{brands}]) && "
        f'item.released > now() - duration("{rng.randrange(24, 24 * DAYS)}h")'
    )


def _fill(database: Database, count: int, rng: random.Random, now_us: int) -> None:
    days = [time.strftime("%Y-%m-%d", time.gmtime(now_us / 1e6 - 86_400 * n)) for n in range(DAYS)]

    def row(number: int) -> dict[str, Any]:
        properties = {"brand": f"brand {rng.randrange(BRANDS)}", "released": rng.choice(days)}
        return {
            "item_id": f"i{number}",
            "title": f"Item {number}",
            "categories": json.dumps([f"c{rng.randrange(CATEGORIES)}"]),
            "price": round(rng.uniform(1, 100), 2),
            "properties": json.dumps(properties),
            "created_at_us": now_us - DAY_US,
            "updated_at_us": now_us - DAY_US,
        }

    for first in range(0, count, PART):
        with database.begin() as connection:
            rows = [row(number) for number in range(first, min(first + PART, count))]
            connection.execute(item_table.insert(), rows)


def _ms(work: Callable[[], object]) -> float:
    """Milliseconds of this thread's processor time: it waits for nothing."""
    started = time.thread_time()
    work()
    return (time.thread_time() - started) * 1e3
