"""bench freshness: is a click in the next answer, whichever process took it?

Two servers of one worker each share a database. An event is posted through one of them; once it is
acknowledged, the other is asked for the user, and for the explicit sequence of that user's events.
It is reflected if the answer's last event is the one just acknowledged and both list the same items.

The servers do not follow what others do (`serving.live_seconds`): a user's answer and that of the
explicit sequence would be of two moments of the live log, and of two askers. A visitor's own events are
read from the database at each request, with the live log and without.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.load import Connection, request_bytes
from bench.servers import make_shop, running
from recsys.storage.engine.database import Database

USERS = 50
STILL = {"RECSYS_SERVING__LIVE_SECONDS": "0"}


def run_freshness(
    posts: int, items: int, now_us: int, postgresql_url: str | None
) -> dict[str, Any]:
    """Post and ask `posts` times, the two servers in turn."""
    with tempfile.TemporaryDirectory() as folder:
        url = postgresql_url or f"sqlite:///{folder}/recsys.db"
        registry = Path(folder)
        database = Database(url)
        key = make_shop(database, registry, items, now_us)
        database.close()
        with (
            running(url, registry, workers=1, **STILL) as (one, _),
            running(url, registry, workers=1, **STILL) as (two, _),
            closing(Connection(one)) as first,
            closing(Connection(two)) as second,
        ):
            return {
                "database": database.dialect,
                "items": items,
                **_alternate(first, second, key, posts, items),
            }


def _alternate(
    one: Connection, two: Connection, key: str, posts: int, items: int
) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    known: dict[str, list[dict[str, Any]]] = {}
    waits, reflected = [], 0
    for number in range(posts):
        writer, reader = (one, two) if number % 2 else (two, one)
        user = f"fresh-{rng.integers(USERS)}"
        event = {
            "user_id": user,
            "item_id": f"item-{rng.integers(items)}",
            "timestamp": time.time_ns() // 1_000_000,
        }
        status, body = writer.ask(request_bytes("/api/v1/events", key, orjson.dumps(event)))
        acknowledged = time.perf_counter()
        if status != 200:
            continue
        event_id = orjson.loads(body)["results"][0]["event_id"]
        # Only what the model reads is sent along: its newest events.
        sequence = known.setdefault(user, [])
        sequence.append({**event, "event_id": event_id})
        del sequence[:-100]
        for _ in range(2):  # counts of recent events turn at each minute, for everyone
            _, body = reader.ask(request_bytes(f"/api/v1/users/{user}/recommendations?k=20", key))
            waits.append(time.perf_counter() - acknowledged)
            answer = orjson.loads(body)
            bare = [{k: v for k, v in e.items() if k != "user_id"} for e in sequence]
            asked = orjson.dumps({"events": bare, "k": 20})
            _, body = reader.ask(request_bytes("/api/v1/recommendations", key, asked))
            explicit = orjson.loads(body)
            same = _items(answer) == _items(explicit)
            if same or answer["generated_at"][:16] == explicit["generated_at"][:16]:
                break
        reflected += same and answer["last_event_id"] == event_id
    p50, p99 = np.percentile(np.array(waits) * 1e3, (50, 99))
    return {
        "posted": posts,
        "reflected": reflected,
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


def _items(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]
