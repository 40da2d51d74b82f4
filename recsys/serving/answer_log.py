"""Answers on their way into the database: written by a thread of their own, never by a request.

What waits is bounded: where the database is away for long, the newest answers are dropped and
counted. A process that stops writes what waits first.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable

import structlog

from recsys.errors import InputError, RecsysError
from recsys.serving.answers import Answer
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.entities import impression_rows, tombstone_rows
from recsys.storage.entities.impression_rows import Impression, ImpressionItem

log = structlog.get_logger(__name__)

MAX_WAITING = 20_000
MAX_WAITING_BYTES = 64 * 2**20
BATCH = 1_000
FLUSH_SECONDS = 0.25
PAGE_WAIT_SECONDS = 0.75  # for an answer that another process has not written yet
BYTES_AN_ITEM = 45  # of an answer's row, measured over ids of ten characters
BYTES_AN_ANSWER = 420  # the row's rest and its indexes


class Impressions:
    """The answers of one process. Its thread starts with the first answer, so after any fork."""

    def __init__(self, database: Database, share: float, on_lost: Callable[[int], None]) -> None:
        """`share` of the answers are kept, chosen by their ids; `on_lost` is told how many were not
        stored though they should have been.
        """
        self._database = database
        self._share = share
        self._on_lost = on_lost
        self._waiting: OrderedDict[str, Impression] = OrderedDict()
        self._bytes = 0  # of those, about
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many wait to be written."""
        return len(self._waiting)

    @property
    def bytes(self) -> int:
        """About how many bytes they take."""
        return self._bytes

    def record(self, answer: Answer) -> None:
        """Take an answer; costs some microseconds. One that counts in an experiment is kept whatever the share."""
        if not (answer.experiments or self._sampled(answer.recommendation_id)):
            return
        with self._lock:
            impression = _impression(answer)
            size = _size_of(impression)
            full = len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES
            if full or self._stopped:
                self._on_lost(1)
                return
            self._waiting[answer.recommendation_id] = impression
            self._bytes += size
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
                self._thread.start()

    def shown_up_to(self, recommendation_id: str, *, wait: bool = True) -> list[str] | None:
        """The items of an answer and of those it goes on from; None where it is not known.

        With `wait`, an answer that another process is about to write is waited for.
        """
        end = time.monotonic() + (PAGE_WAIT_SECONDS if wait else 0.0)
        while True:
            self.flush()
            with self._database.connect() as connection:
                found = impression_rows.shown_up_to(connection, recommendation_id)
            if found is not None or time.monotonic() > end or not self._sampled(recommendation_id):
                return found
            time.sleep(FLUSH_SECONDS / 5)

    def flush(self) -> None:
        """Write what waits. With the database away it goes on waiting; an answer that cannot be
        stored at all is dropped and counted.
        """
        while True:
            with self._lock:
                batch = list(self._waiting.values())[:BATCH]
            if not batch:
                return
            self._store(batch)

    def close(self) -> None:
        """Write what waits and take no more; what cannot be written is counted as lost."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        try:
            self.flush()
        except RecsysError:
            self._on_lost(len(self._waiting))

    def _run(self) -> None:
        away = False
        while not self._stopped:
            self._wake.wait(FLUSH_SECONDS)
            try:
                self.flush()
                away = False
            except RecsysError as error:
                if not away:
                    log.warning("answers wait to be stored", reason=str(error))
                away = True
                self._wake.wait(1.0)
            except Exception:
                log.exception("storing answers failed")

    def _store(self, batch: list[Impression]) -> None:
        """Write a batch, by halves where it is refused: a bad answer takes no other with it."""
        refused = False
        try:
            with self._database.begin() as connection:
                advisory_lock.lock_shared(connection)
                left = tombstone_rows.without_erased(connection, batch)
                impression_rows.insert_impressions(connection, left)
        except Exception as error:
            if isinstance(error, RecsysError) and not isinstance(error, InputError):
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                self._store(batch[:middle])
                self._store(batch[middle:])
                return
            refused = True
            log.error("an answer cannot be stored", kind=type(error).__name__)
        with self._lock:
            gone = [self._waiting.pop(one.recommendation_id, None) for one in batch]
            self._bytes -= sum(_size_of(one) for one in gone if one is not None)
        if refused and gone[0] is not None:  # else another thread has told of it
            self._on_lost(1)

    def _sampled(self, recommendation_id: str) -> bool:
        return zlib.crc32(recommendation_id.encode()) < self._share * 2**32


def _size_of(one: Impression) -> int:
    reasons = 0 if one.reasons is None else 200 * sum(map(len, one.reasons.values()))
    return 1_000 + reasons + 150 * len(one.items) + 2 * sum([len(item[0]) for item in one.items])


def stored_bytes(answer: Answer) -> int:
    """About how many bytes an answer takes once it is stored."""
    return BYTES_AN_ANSWER + sum(BYTES_AN_ITEM + len(item.item_id) for item in answer.items)


def disk_note(share: float, days: int, k: int) -> str:
    """What storing answers will take, for the operator."""
    if share == 0:
        return "answers are not stored (serving.impression_share is 0)"
    mib = share * 1e6 * (BYTES_AN_ANSWER + k * BYTES_AN_ITEM) / 2**20
    return f"a million answers of {k} items take about {mib:,.0f} MiB, kept {days} days"


def _impression(answer: Answer) -> Impression:
    reasons = {
        item.item_id: [
            {"item_id": why.item_id, "event_id": why.event_id, "share": why.share}
            for why in item.reason
        ]
        for item in answer.items
        if item.reason
    }
    return Impression(
        recommendation_id=answer.recommendation_id,
        created_at_us=answer.generated_at_us,
        user_id=answer.user_id,
        session_id=answer.session_id,
        model_version=answer.model_version,
        arm=answer.arm,
        scenario=answer.scenario,
        scenario_version=answer.scenario_version,
        items=tuple(
            ImpressionItem(item.item_id, item.source, round(item.score, 7), item.propensity)
            for item in answer.items
        ),
        page_of=answer.page_of,
        experiments={one.experiment: one.arm for one in answer.experiments if one.counted} or None,
        last_event_id=answer.last_event_id,
        sequence_length=answer.sequence_length,
        reasons=reasons or None,
    )
