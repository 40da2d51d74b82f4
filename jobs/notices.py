"""Telling people: a run failed, a champion was rolled back, or the model is old. One small JSON message to one address.

The address is of a host that the configuration allows, redirects are not followed, and a receiver
that does not answer costs a few seconds and nothing else.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog

from recsys.config import Settings
from recsys.data.times import rfc3339
from recsys.errors import ConfigError
from recsys.storage import job_rows, version_rows
from recsys.storage.database import Database

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 5.0
LOOK_SECONDS = 10.0
HOUR_US = 3_600 * 1_000_000
BAD_STATES = ("failed", "timed_out")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


class Notices:
    """What a leading scheduler tells. Each run and each stretch of an old model is told once."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for an address that is not on the web or of a host not allowed."""
        chosen = settings.schedule
        self._url = chosen.webhook_url.get_secret_value()
        self._max_age_us = chosen.max_model_age_hours * HOUR_US
        self._told_run: int | None = None  # the newest ended run that was looked at
        self._told_version: str | None = None
        self._next_us = 0
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
        if self._url:
            parts = urlsplit(self._url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ConfigError("schedule.webhook_url", "…", "expected https://host/path")
            if parts.hostname not in chosen.webhook_hosts:
                raise ConfigError(
                    "schedule.webhook_hosts", list(chosen.webhook_hosts), "lacks webhook_url's host"
                )

    def look(self, database: Database, now_us: int) -> None:
        """Tell what has happened since the last look; at most every LOOK_SECONDS."""
        if now_us < self._next_us and self._next_us - now_us < 2 * LOOK_SECONDS * 1e6:
            return
        self._next_us = now_us + int(LOOK_SECONDS * 1e6)
        with database.connect() as connection:
            runs = job_rows.list_runs(connection, limit=100)
            champion = version_rows.champion(connection) if self._max_age_us else None
        ended = [run for run in runs if run.state in job_rows.ENDED]
        newest = max((run.finished_at_us or 0 for run in ended), default=0)
        since = self._told_run
        for run in ended if since is not None else ():
            if since is None or (run.finished_at_us or 0) <= since:
                continue
            about = {"run_id": run.id, "job": run.job, "at": rfc3339(run.finished_at_us)}
            if run.state in BAD_STATES:
                more = {"state": run.state, "reason": run.error}
                self._tell({"event": "run_failed", **about, **more})
            elif (rolled_back := (run.outcome or {}).get("rolled_back")) is not None:
                self._tell({"event": "rolled_back", **about, "reason": rolled_back})
        self._told_run = max(newest, since or 0)
        old = champion is not None and now_us - champion.data_end_us > self._max_age_us
        if champion is not None and old and self._told_version != champion.version:
            self._told_version = champion.version
            until = rfc3339(champion.data_end_us)
            at = rfc3339(now_us)
            self._tell(
                {"event": "model_old", "version": champion.version, "data_until": until, "at": at}
            )

    def _tell(self, message: Mapping[str, Any]) -> None:
        log.warning("notice", **{("kind" if k == "event" else k): v for k, v in message.items()})
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
        except (urllib.error.URLError, OSError, ValueError) as error:
            log.warning("the webhook was not reached", kind=type(error).__name__)
