"""bench swap: promotions under load. No request may fail, no answer may be of an old champion."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from bench.load import closed_loop, request_bytes
from bench.servers import USERS, make_shop, running
from recsys.storage.engine.database import Database
from recsys.storage.entities import version_rows

VERSIONS = 6
GRACE_SECONDS = 5.0  # within which every worker must have followed


def run_swap(promotions: int, items: int, now_us: int) -> dict[str, Any]:
    """Promote one of VERSIONS after another while two workers are asked without a pause."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder)
        url = f"sqlite:///{folder}/recsys.db"
        database = Database(url)
        key = make_shop(database, registry, items, now_us, VERSIONS)
        with database.connect() as connection:
            names = [row.version for row in version_rows.list_versions(connection)]
        # (from when, champion, control) as the deployments say.
        with database.connect() as connection:
            serving = [name for name, _ in version_rows.deployed_names(connection)]
        history: list[tuple[float, set[str]]] = [(time.perf_counter(), set(serving))]
        answers: list[tuple[float, str]] = []
        stop = threading.Event()

        def promote() -> None:
            for number in range(promotions):
                if stop.wait(0.5):
                    return
                with database.begin() as connection:
                    version_rows.deploy(
                        connection, names[number % VERSIONS], now_us, "bench", "bench"
                    )
                with database.connect() as connection:
                    live = {name for name, _ in version_rows.deployed_names(connection)}
                history.append((time.perf_counter(), live))

        def note(moment: float, body: bytes) -> None:
            answers.append((moment, orjson.loads(body).get("model_version", "")))

        asked = [
            request_bytes(f"/api/v1/users/user-{user}/recommendations?k=5", key)
            for user in range(USERS)
        ]
        more = {"RECSYS_SERVING__CONTROL_SHARE": "0.2", "RECSYS_SERVING__RELOAD_SECONDS": "1"}
        with running(url, registry, workers=2, **more) as (port, _):
            thread = threading.Thread(target=promote)
            thread.start()
            load = closed_loop(port, asked, 4, promotions * 0.5 + GRACE_SECONDS, note)
            stop.set()
            thread.join()
        database.close()
    stale = sum(version not in _live(history, moment) for moment, version in answers)
    last = history[-1][0] + GRACE_SECONDS
    return {
        "promotions": len(history) - 1,
        "answers": len(answers),
        "versions_seen": len({version for _, version in answers}),
        "not_2xx": load.errors,
        "stale": stale,
        "answers_after_the_last_grace": sum(moment > last for moment, _ in answers),
        **{name: value for name, value in load.plain().items() if name.startswith("p")},
    }


def _live(history: list[tuple[float, set[str]]], moment: float) -> set[str]:
    """Versions that were champion or control at some time in the GRACE_SECONDS before `moment`."""
    found: set[str] = set()
    for number, (since, live) in enumerate(history):
        until = history[number + 1][0] if number + 1 < len(history) else float("inf")
        if until > moment - GRACE_SECONDS and since <= moment:
            found |= live
    return found
