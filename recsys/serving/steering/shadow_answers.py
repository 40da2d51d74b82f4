"""What shadow arms would have answered: ranked and stored by a thread of its own, after the answer is out.

What waits is bounded: where requests come faster than they can be ranked a second time, some have no shadow.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import structlog

from recsys.errors import RecsysError
from recsys.serving.answers import Answer, ShadowArm
from recsys.storage.engine.database import Database
from recsys.storage.entities import shadow_rows
from recsys.storage.entities.shadow_rows import ShadowAnswer

log = structlog.get_logger(__name__)

MAX_WAITING = 64
PAUSE = (
    1.0  # seconds of rest for each second of ranking, so that answers have most of the processor
)

Rank = Callable[[ShadowArm, int], Answer]  # at a time in µs


class ShadowAnswers:
    """The shadows of one process. The thread starts with the first, so after any fork."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: queue.Queue[tuple[Answer, Rank] | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def take(self, answer: Answer, rank: Rank) -> None:
        """Rank the shadow arms of an answer that was given, later; or not, where too many wait."""
        if not answer.shadows:
            return
        try:
            self._waiting.put_nowait((answer, rank))
        except queue.Full:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Finish the one at hand and drop what waits."""
        if self._thread is None:
            return
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def flush(self) -> None:
        """Wait until nothing waits; for tests."""
        self._waiting.join()

    def _run(self) -> None:
        while True:
            found = self._waiting.get()
            if found is None:
                return
            try:
                self._store(*found)
            except RecsysError as error:
                log.warning("a shadow was not stored", reason=str(error))
            except Exception:
                log.exception("a shadow failed")
            finally:
                self._waiting.task_done()

    def _store(self, answer: Answer, rank: Rank) -> None:
        shown = {item.item_id for item in answer.items}
        for arm in answer.shadows:
            started = time.perf_counter()
            other = rank(arm, answer.generated_at_us)
            spent = time.perf_counter() - started
            items = tuple((one.item_id, one.source, round(one.score, 7)) for one in other.items)
            own = {item_id for item_id, *_ in items}
            found = ShadowAnswer(
                recommendation_id=answer.recommendation_id,
                experiment=arm.experiment,
                arm=arm.arm,
                created_at_us=answer.generated_at_us,
                items=items,
                overlap=len(shown & own) / max(1, len(shown)),
                milliseconds=1e3 * spent,
            )
            with self._database.begin() as connection:
                shadow_rows.add_shadow(connection, found, answer.user_id, answer.session_id)
            time.sleep(PAUSE * spent)
