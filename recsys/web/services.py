"""What the views of one app share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app, g

from recsys.config import Settings
from recsys.events.times import SteadyClock
from recsys.serving.answer_log import Impressions
from recsys.serving.recommender import Recommender
from recsys.serving.usage_counts import Activity
from recsys.storage.engine.database import Database
from recsys.storage.entities.stamps import Stamps
from recsys.web.api_keys import Keys


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    recommender: Recommender
    keys: Keys
    impressions: Impressions
    activity: Activity

    def close(self) -> None:
        """Write what waits to be written: the requests are done."""
        self.impressions.close()
        self.activity.close()
        self.recommender.source.close()


def services() -> Services:
    return cast(Services, current_app.extensions["recsys"])


def stamps() -> Stamps | None:
    """The stamps, where the request's key was looked up with them."""
    found: Stamps | None = g.get("stamps")
    return found


_clock = SteadyClock()


def now_us() -> int:
    """µs since 1970, UTC; goes on when the machine's clock is set back."""
    return _clock()
