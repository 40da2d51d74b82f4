"""Events of an external table as the dashboard shows them (`dashboard.event_views`).

One visitor's events come through the index that answers use, lists from the newest rows, and the refresh
job counts rows by hour and users by day as it does those of the service's own table.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import orjson
import pyarrow.compute as pc
from sqlalchemy import Connection

from recsys.errors import SourceUnavailableError
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import Owner
from recsys.events.times import DAY_US
from recsys.storage.dashboard import activity_rows
from recsys.storage.dashboard.catalogue_views import MAX_STEPS, ItemEvents
from recsys.storage.dashboard.external_activity import MAX_HELD, ActivityCounts
from recsys.storage.dashboard.visitor_views import (
    COUNTED,
    SCANNED,
    EventPosition,
    TimeLineEvent,
    Visitor,
    VisitorPage,
    VisitorQuery,
)
from recsys.storage.entities import key_values
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.external.external_events import ExternalEvents, check_skipped

NEWEST_ROWS = 50_000  # in which one item's events are looked for
KEPT_DAYS = 400  # that are counted


class ExternalEventViews:
    """Lists and counts of an external table."""

    def __init__(self, source: ExternalEvents, max_held: int = MAX_HELD) -> None:
        """`max_held`: users of days that are told apart while they are counted, eight bytes each."""
        self._source, self._max_held = source, max_held

    def recent_visitors(self, connection: Connection, query: VisitorQuery) -> VisitorPage:
        """One page, of the newest rows."""
        found = self._newest_visitors(connection, query.now_us)
        if query.kind is not None:
            registered = query.kind == "registered"
            found = [one for one in found if bool(one.user_id) == registered]
        return VisitorPage(found[: query.limit], None, SCANNED)

    def visitors_like(
        self, connection: Connection, prefix: str, limit: int, *, now_us: int
    ) -> list[Visitor]:
        """Those among the newest rows, and the user of that very id."""
        recent = self._newest_visitors(connection, now_us)
        found = [one for one in recent if one.name.startswith(prefix)][:limit]
        if not any(one.user_id == prefix for one in found):
            owner = Owner(prefix)
            for event in self.time_line(connection, owner, 1):
                count = self.count_events(connection, owner, COUNTED)
                one = Visitor(prefix, None, event.timestamp_us, event.item_id, count)
                found.insert(0, one)
        return sorted(found, key=lambda one: one.name != prefix)

    def _newest_visitors(self, connection: Connection, now_us: int) -> list[Visitor]:
        """Whose events are among the newest, the last first; counted among those alone."""
        hidden = self._source.hidden(connection)
        table = self._source.rows().newest(now_us, SCANNED, hidden)
        table = table.sort_by([("timestamp_us", "descending"), ("position", "descending")])
        last: dict[tuple[str | None, str | None], tuple[int, str]] = {}
        events: Counter[tuple[str | None, str | None]] = Counter()
        columns = ("user_id", "session_id", "timestamp_us", "item_id")
        for user_id, session_id, at_us, item_id in zip(
            *(table[name].to_pylist() for name in columns), strict=True
        ):
            owner = (user_id, None) if user_id is not None else (None, session_id)
            last.setdefault(owner, (at_us, item_id))
            events[owner] += 1
        return [Visitor(*owner, *last[owner], min(events[owner], COUNTED)) for owner in last]

    def count_events(self, connection: Connection, owner: Owner, limit: int) -> int:
        """How many events a user (with those merged in) or a session has; `limit` at most."""
        return min(len(self._source.all_events(connection, owner)), limit)

    def time_line(
        self, connection: Connection, owner: Owner, limit: int, before: EventPosition | None = None
    ) -> list[TimeLineEvent]:
        """The newest `limit` events before a position, newest first; an event's `id` is how many
        events are as new as it.
        """
        skipped = 0 if before is None else before.row_id
        check_skipped(skipped)
        found = self._source.newest_events(connection, owner, skipped + limit)
        names = [one.name for one in fields(TimeLineEvent) if one.name != "id"]
        return [
            TimeLineEvent(id=at, **{name: getattr(event, name) for name in names})
            for at, event in enumerate(found[skipped:], skipped + 1)
        ]

    def item_events(
        self, connection: Connection, item_id: str, step_us: int, *, now_us: int
    ) -> ItemEvents:
        """Events of an item by time and type, among the newest NEWEST_ROWS rows."""
        rows = self._source.rows()
        try:
            table = rows.newest(now_us, NEWEST_ROWS, self._source.hidden(connection))
        except SourceUnavailableError:  # the rest of the page needs no table of the user's
            table = None
        if table is None or not table.num_rows:
            return ItemEvents(None, 0, [])
        since_us = int(pc.min(table["timestamp_us"]).as_py())
        own = table.filter(pc.equal(table["item_id"], item_id))
        counts: Counter[tuple[int, str]] = Counter(
            (at_us - at_us % step_us, event_type)
            for at_us, event_type in zip(
                own["timestamp_us"].to_pylist(), own["event_type"].to_pylist(), strict=True
            )
        )
        steps = [
            (step, event_type, number) for (step, event_type), number in sorted(counts.items())
        ]
        return ItemEvents(since_us, table.num_rows, steps[-MAX_STEPS:])

    def samples(self, events: int, total: int, now_us: int) -> tuple[EventFrame, EventFrame]:
        """Twice the newest `events` events: whole users would be a read of the whole table."""
        with self._source.database.connect() as connection:
            hidden = self._source.hidden(connection)
        builder = EventFrameBuilder()
        table = self._source.rows().newest(now_us, events, hidden)
        if table.num_rows:
            builder.append(table)
        frame = builder.build()
        return frame, frame

    def count_activity(self, now_us: int) -> int:
        """Bring events by hour and users by day up to date; how many days were counted anew.

        The newest two days or so are counted anew each time, along the table's index; a row that comes
        with an older time is not counted. What was counted of another table goes.
        """
        database, rows = self._source.database, self._source.rows()
        with database.connect() as connection:
            kept = key_values.get_text(connection, InstallationKey.EXTERNAL_COUNTED)
            hidden = self._source.hidden(connection)
        state: dict[str, Any] = orjson.loads(kept or "{}")
        known = state.get("of") == rows.mapping.fingerprint and not rows.lies_behind(state["end"])
        since_us = max(0, now_us - now_us % DAY_US - KEPT_DAYS * DAY_US)
        mark: str | None = None
        if known:
            since_us, mark = int(state["day_us"]), state["mark"]
        end = rows.end()
        if end is None:
            return 0
        counts = ActivityCounts(since_us, self._max_held)
        for chunk in rows.chunks(mark, end) if rows.mapping.chunked else [None]:
            for batch in rows.batches(now_us, chunk, since_us, hidden):
                counts.add(batch)
            counts.close_days()
        hours, users = counts.rows()
        day_us, place = counts.mark(rows) or (since_us, rows.mapping.mark(end))
        own = {"of": rows.mapping.fingerprint, "end": rows.mapping.mark(end)}
        state = {**own, "day_us": day_us, "mark": place}
        with database.begin() as connection:
            if not known:
                activity_rows.begin_again(connection)
            activity_rows.put_counts(connection, since_us, hours, users)
            key_values.put(
                connection, InstallationKey.EXTERNAL_COUNTED, orjson.dumps(state).decode()
            )
        return len(users)
