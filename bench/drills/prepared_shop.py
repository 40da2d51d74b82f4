"""What drills begin with: an installation with a shop, two versions and a page's key."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bench.drills.fault_stage import shop_of
from bench.installations import ORIGIN, Installation
from recsys.events.times import HOUR_US, to_us


def with_two_versions(made: Installation, events: int = 3_000) -> Installation:
    """With a shop's events and items, a champion, one before it, both since hours ago, and a page's key."""
    now_us = to_us(datetime.now(UTC))
    shop = shop_of(events, now_us)
    pq.write_table(pa.concat_tables(shop.events()), made.folder / "events.parquet")
    catalogue = [
        {"item_id": one.item_id, "title": one.title, "price": one.price} for one in shop.items
    ]
    (made.folder / "items.jsonl").write_bytes(b"\n".join(map(orjson.dumps, catalogue)))
    made.done("events", "import", "events.parquet")
    made.done("items", "import", "items.jsonl")
    for _ in range(2):
        made.done("train", "--force-promote")
    with closing(sqlite3.connect(made.folder / "var" / "recsys.db")) as file, file:
        file.execute("UPDATE deployments SET deployed_at_us = deployed_at_us - ?", (2 * HOUR_US,))
    told = made.done("keys", "create", "page", "--scope", "collect", "--origin", ORIGIN)
    return replace(made, page_key=told["key"])
