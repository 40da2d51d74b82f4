"""Send notices to the configured webhook, and one where no scheduler runs."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog

from recsys.config import Settings
from recsys.errors import ConfigError, RecsysError
from recsys.events.times import rfc3339
from recsys.storage.engine.database import Database
from recsys.storage.entities import lease_rows

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 5.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


class Webhook:
    """Tells the log, and the configured address if there is one."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for an address that is not on the web or of a host not allowed."""
        self._url = settings.schedule.webhook_url.get_secret_value()
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
        if not self._url:
            return
        parts, allowed = urlsplit(self._url), settings.schedule.webhook_hosts
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("schedule.webhook_url", "…", "expected https://host/path")
        if parts.hostname not in allowed:
            raise ConfigError(
                "schedule.webhook_hosts", list(allowed), "expected webhook_url's host among them"
            )

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tell, without waiting. `message` has the key `event`, which says of what kind it is."""
        log.warning("notice", **{"kind" if k == "event" else k: v for k, v in message.items()})
        if self._url:
            threading.Thread(target=self._post, args=(message,), daemon=True).start()

    def _post(self, message: Mapping[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "recsys"}
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url, orjson.dumps({"source": "recsys", **message}), headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS):
                pass
        except Exception as error:  # its text may hold the address, which is a secret
            log.warning("the webhook was not reached", kind=type(error).__name__)


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
