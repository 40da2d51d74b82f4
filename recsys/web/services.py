"""What the views of one app share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

from flask import current_app, g, request

from recsys.config import Settings
from recsys.events.times import SteadyClock
from recsys.ingest.ecommerce_events import EventNames
from recsys.serving.answer_log import Impressions
from recsys.serving.recommender import Recommender
from recsys.serving.usage_counts import Activity
from recsys.storage.dashboard.event_views import EventViews, open_event_views
from recsys.storage.engine.database import Database
from recsys.storage.engine.group_commit import GroupCommit
from recsys.storage.entities.account_rows import SessionRow
from recsys.storage.entities.audit_rows import Actor
from recsys.storage.entities.key_rows import KeyRow
from recsys.storage.entities.stamps import Stamps
from recsys.web.api_keys import Keys
from recsys.web.usage import Usage


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    writes: GroupCommit  # of events
    recommender: Recommender
    keys: Keys
    impressions: Impressions
    activity: Activity
    usage: Usage

    @cached_property
    def event_names(self) -> EventNames:
        """What tracked events of each name are."""
        return EventNames(self.settings.segment.events)

    @cached_property
    def event_views(self) -> EventViews:
        """The dashboard's lists and counts of events."""
        return open_event_views(self.recommender.source, self.database)

    def close(self) -> None:
        """Write what waits to be written: the requests are done."""
        self.impressions.close()
        self.activity.close()
        self.recommender.close()


def services() -> Services:
    return cast(Services, current_app.extensions["recsys"])


def stamps() -> Stamps | None:
    """The stamps, where the request's key was looked up with them."""
    found: Stamps | None = g.get("stamps")
    return found


def actor() -> Actor:
    """Who sent the request at hand."""
    context = {"request_id": g.get("request_id"), "address": request.remote_addr}
    session: SessionRow | None = g.get("account")
    if session is not None:
        return Actor(session.name, session.role, **context)
    key: KeyRow | None = g.get("key")
    return Actor("anyone" if key is None else f"key {key.key_id}", "key", **context)


_clock = SteadyClock()


def now_us() -> int:
    """µs since 1970, UTC; goes on when the machine's clock is set back."""
    return _clock()
