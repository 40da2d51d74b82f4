"""What needs no training and should be fresh: clicks attributed to the answers they came from, a look
at how the champion does, what follows items newer than the model, and planner statistics for the
queries of a request.

Popular items are counted by the serving processes themselves, at most once a minute.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys import upkeep
from recsys.config import Settings
from recsys.storage.database import Database
from recsys.storage.upkeep import analyse

if TYPE_CHECKING:
    from jobs.runs import RunLog


def run(settings: Settings, database: Database, log: RunLog) -> dict[str, Any]:
    """Refresh; the outcome counts what was looked at, and says what was rolled back and why."""
    log.at("clicks", 0.0)
    looked_at = upkeep.attribute_clicks(database, datetime.now(UTC))
    log.at("champion", 0.2)
    rolled_back = upkeep.guard_champion(settings, database, datetime.now(UTC), log.fence)
    if rolled_back is not None:
        log.say(f"rolled back: {rolled_back}")
    log.at("new items", 0.3)
    followers = upkeep.refresh_followers(settings, database, log.say)
    log.at("sequence files", 0.6)
    erased = upkeep.follow_removals(settings, database)
    log.at("statistics", 0.8)
    return {
        "clicks_looked_at": looked_at,
        "followers": followers,
        "rolled_back": rolled_back,
        "sequence_files_followed": erased,
        **analyse(database),
    }
