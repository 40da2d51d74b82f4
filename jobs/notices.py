"""What a leading scheduler tells people: a run failed, a champion was rolled back, the model is old."""

from __future__ import annotations

from recsys.config import Settings
from recsys.events.times import HOUR_US, rfc3339
from recsys.ops.webhook import Webhook
from recsys.storage.engine.database import Database
from recsys.storage.entities import job_rows, version_rows

LOOK_SECONDS = 10.0
BAD_STATES = ("failed", "timed_out")


class Notices:
    """Each run, and each version that has grown old, is told of once."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError for an address that may not be told."""
        self._tell = Webhook(settings).tell
        self._max_age_us = settings.schedule.max_model_age_hours * HOUR_US
        self._told_run: int | None = None  # when the newest ended run that was looked at had ended
        self._told_version: str | None = None
        self._next_us = 0

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
            if run.job in job_rows.FILE_JOBS:
                continue  # who asked for it is told on the page
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
