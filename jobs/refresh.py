"""What needs no training and should be fresh: clicks attributed to the answers they came from, a look
at how the champion does, what follows items newer than the model, counts for the dashboard, how
the events look, and planner statistics for the queries of a request.

Popular items are counted by the serving processes themselves, at most once a minute.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys.config import Settings
from recsys.errors import ConfigError, SourceUnavailableError
from recsys.ops import upkeep
from recsys.ops.guard import guard_champion
from recsys.storage.engine.database import Database
from recsys.storage.engine.planner_statistics import analyse

if TYPE_CHECKING:
    from jobs.runs import RunLog


def run(settings: Settings, database: Database, log: RunLog) -> dict[str, Any]:
    """Refresh; the outcome counts what was looked at, and says what was rolled back and why."""
    log.at("clicks", 0.0)
    looked_at = upkeep.attribute_clicks(database, datetime.now(UTC))
    log.at("champion", 0.2)
    rolled_back = guard_champion(settings, database, datetime.now(UTC), log.fence)
    if rolled_back is not None:
        log.say(f"rolled back: {rolled_back}")
    followers = items = days = looked_over = 0
    erased = False
    try:
        log.at("items", 0.25)
        items = upkeep.copy_items(settings, database, datetime.now(UTC), log.say)
        log.at("new items", 0.3)
        followers = upkeep.refresh_followers(settings, database, log.say)
        log.at("sequence files", 0.6)
        erased = upkeep.follow_removals(settings, database)
        log.at("counts", 0.7)
        days = upkeep.count_activity(settings, database, datetime.now(UTC))
        log.at("quality", 0.8)
        looked_over = upkeep.report_quality(settings, database, datetime.now(UTC), log.say)
    except (SourceUnavailableError, ConfigError) as error:  # the rest needs no table of the user's
        log.say(f"{error}; tried again at the next refresh")
    log.at("statistics", 0.9)
    return {
        "clicks_looked_at": looked_at,
        "items_copied": items,
        "followers": followers,
        "rolled_back": rolled_back,
        "sequence_files_followed": erased,
        "days_counted": days,
        "events_looked_over": looked_over,
        **analyse(database),
    }
