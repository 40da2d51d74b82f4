"""Keep fresh what needs no training: enter events whose time has come, attribute clicks and conversions to
answers, follow experiments, guard the champion, copy items and users, count what follows items newer than the
model, count activity for the dashboard, report on the events' quality, rank a finished hour's positions as they were
served, delete uploaded files that nobody imported, and refresh the planner statistics of a request's queries.

Popular items are counted by the serving processes themselves, at most once a minute.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.run_log import RunLog
from recsys.config import Settings
from recsys.errors import ConfigError, SourceUnavailableError
from recsys.events.times import to_us
from recsys.ingest.uploads import open_uploads
from recsys.ops import experiment_upkeep, upkeep
from recsys.ops.conversions import attribute_conversions
from recsys.ops.guard import guard_champion
from recsys.storage.engine.database import Database
from recsys.storage.engine.database_health import analyse


@dataclass
class RefreshOutcome:
    """What was looked at and counted, and why a champion was rolled back."""

    deferred_events: int = 0  # whose time has come
    clicks_looked_at: int = 0
    conversions_looked_at: int = 0
    experiment_events: int = 0  # conversions and returns that were looked at
    items_copied: int = 0
    users_copied: int = 0
    followers: int = 0
    rolled_back: str | None = None
    sequence_files_followed: bool = False
    days_counted: int = 0
    events_looked_over: int = 0
    positions_ranked: int = 0
    tables: int = 0  # whose planner statistics were refreshed

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(settings: Settings, database: Database, log: RunLog) -> RefreshOutcome:
    """Refresh step by step; a table of the user's that is away is left to the next refresh."""
    done = RefreshOutcome()
    done.deferred_events = upkeep.enter_deferred(database, datetime.now(UTC))
    log.at("clicks", 0.0)
    done.clicks_looked_at = upkeep.attribute_clicks(database, datetime.now(UTC))
    log.at("conversions", 0.1)
    done.conversions_looked_at = attribute_conversions(settings, database, datetime.now(UTC))
    log.at("experiments", 0.15)
    done.experiment_events = experiment_upkeep.follow(settings, database, datetime.now(UTC))
    log.at("champion", 0.2)
    done.rolled_back = guard_champion(settings, database, datetime.now(UTC), log.fence)
    if done.rolled_back is not None:
        log.say(f"rolled back: {done.rolled_back}")
    try:
        log.at("items", 0.25)
        done.items_copied = upkeep.copy_items(settings, database, datetime.now(UTC), log.say)
        log.at("users", 0.28)
        done.users_copied = upkeep.copy_users(settings, database, datetime.now(UTC), log.say)
        log.at("new items", 0.3)
        done.followers = upkeep.refresh_followers(settings, database, log.say)
        log.at("sequence files", 0.6)
        done.sequence_files_followed = upkeep.follow_removals(settings, database)
        log.at("counts", 0.7)
        done.days_counted = upkeep.count_activity(settings, database, datetime.now(UTC))
        log.at("quality", 0.8)
        done.events_looked_over = upkeep.report_quality(
            settings, database, datetime.now(UTC), log.say
        )
        log.at("live quality", 0.85)
        done.positions_ranked = upkeep.measure_live_quality(
            settings, database, datetime.now(UTC), log.say
        )
    except (SourceUnavailableError, ConfigError) as error:  # the rest needs no table of the user's
        log.say(f"{error}; tried again at the next refresh")
    open_uploads(settings).sweep(to_us(datetime.now(UTC)))
    log.at("statistics", 0.9)
    done.tables = analyse(database)["tables"]
    return done
