"""Whether somebody schedules: asked by the service, because nobody else is there if nobody does."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from recsys.errors import RecsysError
from recsys.events.times import rfc3339
from recsys.ops.webhook import Webhook
from recsys.storage.engine.database import Database
from recsys.storage.entities import lease_rows

log = structlog.get_logger(__name__)

LOOK_SECONDS = 30.0
SILENT_SECONDS = 300.0


class SchedulerWatch:
    """Tells once where a lease that was held stands still for SILENT_SECONDS by this clock."""

    def __init__(self, database: Database, webhook: Webhook, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back, such as time.monotonic."""
        self._database, self._webhook, self._clock = database, webhook, clock
        self._seen: tuple[int, int] | None = None
        self._since = 0.0
        self._told = False

    def look(self) -> None:
        """One look at the lease."""
        with self._database.connect() as connection:
            lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
        now = self._clock()
        if (lease.token, lease.beats) != self._seen:
            self._seen, self._since, self._told = (lease.token, lease.beats), now, False
        silent = lease.token > 0 and now - self._since >= SILENT_SECONDS
        if silent and not self._told:
            self._told = True
            last = rfc3339(lease.renewed_at_us)
            self._webhook.tell({"event": "no_scheduler", "last_heard_of": last})

    def run(self, stop: threading.Event) -> None:
        """Look now and then until `stop` is set; for a thread of its own."""
        while not stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except RecsysError as error:
                log.warning("the scheduler's lease cannot be read", reason=str(error))
            except Exception:
                log.exception("looking at the scheduler's lease failed")
