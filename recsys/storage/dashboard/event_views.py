"""What the dashboard shows of events, wherever they are: in the service's own table or a mapped one.

Of a mapped table, one visitor's events come through the index that answers use, lists from the newest
rows, and the refresh job counts its rows by hour and users by day as it does those of the own table.
Where posted events stand beside a mapped table, the mapped one is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from recsys.errors import SourceUnavailableError
from recsys.events.fields import EVENT_COLUMNS
from recsys.events.frame import EventFrame, EventFrameBuilder
from recsys.events.identity import key_hashes
from recsys.events.times import DAY_US, HOUR_US
from recsys.storage.dashboard import activity_rows, catalogue_views, visitor_views
from recsys.storage.dashboard.catalogue_views import ItemEvents
from recsys.storage.dashboard.visitor_views import Place, Visitor, VisitorPage
from recsys.storage.engine.database import Database
from recsys.storage.entities import event_rows, key_values
from recsys.storage.entities.event_reading import read_newest, read_sample
from recsys.storage.entities.key_values import InstallationKey
from recsys.storage.event_source import EventSource
from recsys.storage.external.external_rows import ExternalRows

NEWEST_ROWS = 50_000  # of a mapped table in which one item's events are looked for
KEPT_DAYS = 400  # that are counted of a mapped table
OPEN_DAYS = 3  # the newest, whose users are told apart whatever happens
MAX_HELD = 20_000_000  # users of days that are told apart, eight bytes each


def recent_visitors(
    source: EventSource,
    connection: Connection,
    limit: int,
    before_id: int | None = None,
    kind: str | None = None,
    *,
    now_us: int,
) -> VisitorPage:
    """As `visitor_views.recent_visitors`; of a mapped table one page, of its newest rows."""
    rows = source.rows()
    if rows is None:
        return visitor_views.recent_visitors(connection, limit, before_id, kind)
    found = _newest_visitors(source, rows, connection, now_us)
    wanted = [one for one in found if kind is None or (kind == "registered") == bool(one.user_id)]
    return VisitorPage(wanted[:limit], None, visitor_views.SCANNED)


def visitors_like(
    source: EventSource, connection: Connection, prefix: str, limit: int, now_us: int
) -> list[Visitor]:
    """As `visitor_views.visitors_like`; of a mapped table those among the newest, and an equal one."""
    rows = source.rows()
    if rows is None:
        return visitor_views.visitors_like(connection, prefix, limit)
    recent = _newest_visitors(source, rows, connection, now_us)
    found = [one for one in recent if one.name.startswith(prefix)][:limit]
    if not any(one.user_id == prefix for one in found):
        newest = time_line(source, connection, prefix, None, 1)
        if newest:
            count = count_events(source, connection, prefix, None, visitor_views.COUNTED)
            event = newest[0]
            one = Visitor(prefix, None, event["timestamp_us"], event["item_id"], count)
            found.insert(0, one)
    return sorted(found, key=lambda one: one.name != prefix)


def _newest_visitors(
    source: EventSource, rows: ExternalRows, connection: Connection, now_us: int
) -> list[Visitor]:
    """Whose events are among the newest, the last first; counted among those alone."""
    table = rows.newest(now_us, visitor_views.SCANNED, source.hidden(connection))
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
    return [
        Visitor(*owner, *last[owner], min(events[owner], visitor_views.COUNTED)) for owner in last
    ]


def count_events(
    source: EventSource,
    connection: Connection,
    user_id: str | None,
    session_id: str | None,
    limit: int,
) -> int:
    """As `visitor_views.count_events`; where posts stand beside a mapped table, they count too."""
    table, found = source.serving(), 0
    if table is None or source.reads_own:
        found = visitor_views.count_events(connection, user_id, session_id, limit)
    if table is not None:
        keys = _keys(connection, user_id, session_id)
        found += table.known(keys, source.hidden(connection)).events
    return min(found, limit)


def time_line(
    source: EventSource,
    connection: Connection,
    user_id: str | None,
    session_id: str | None,
    limit: int,
    before: Place | None = None,
) -> list[dict[str, Any]]:
    """As `visitor_views.time_line`; a mapped event's `id` is how many events are as new as it.

    Where posts stand beside a mapped table: of one whom the table does not know, the posts.
    """
    table = source.serving()
    if table is None:
        return visitor_views.time_line(connection, user_id, session_id, limit, before)
    skipped = 0 if before is None else before.row_id
    keys = _keys(connection, user_id, session_id)
    if source.reads_own and not table.known(keys, source.hidden(connection)).events:
        return visitor_views.time_line(connection, user_id, session_id, limit, before)
    found, _ = table.page(keys, limit, skipped, source.hidden(connection))
    return [
        {
            **dict.fromkeys(EVENT_COLUMNS),
            **row.event._asdict(),
            "id": skipped + at,
            "user_id": row.user_id,
        }
        for at, row in enumerate(found, 1)
    ]


def _keys(connection: Connection, user_id: str | None, session_id: str | None) -> list[str]:
    if user_id is None:
        return [f"s:{session_id}"]
    return [f"u:{user_id}", *event_rows.merged_into(connection, user_id)]


def item_events(
    source: EventSource, connection: Connection, item_id: str, step_us: int, now_us: int
) -> ItemEvents:
    """As `catalogue_views.item_events`; of a mapped table among its newest NEWEST_ROWS rows."""
    rows = source.rows()
    if rows is None:
        return catalogue_views.item_events(connection, item_id, step_us)
    try:
        table = rows.newest(now_us, NEWEST_ROWS, source.hidden(connection))
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
    steps = [(step, event_type, number) for (step, event_type), number in sorted(counts.items())]
    return ItemEvents(since_us, table.num_rows, steps[-catalogue_views.MAX_STEPS :])


def read_samples(
    source: EventSource, database: Database, events: int, total: int, now_us: int
) -> tuple[EventFrame, EventFrame]:
    """Whole users of about `events` events, and the newest events; of a mapped table both are the
    newest.
    """
    rows = source.rows()
    if rows is None:
        return read_sample(database, events, total), read_newest(database, events)
    with database.connect() as connection:
        hidden = source.hidden(connection)
    builder = EventFrameBuilder()
    table = rows.newest(now_us, events, hidden)
    if table.num_rows:
        builder.append(table)
    frame = builder.build()
    return frame, frame


def count_activity(source: EventSource, database: Database, now_us: int) -> int:
    """Bring events by hour and users by day up to date; how many days were counted anew.

    Of a mapped table the newest two days or so are counted anew each time, along its index; a row that
    comes with an older time is not counted. What was counted of another table goes.
    """
    rows = source.rows()
    with database.connect() as connection:
        kept = key_values.get_text(connection, InstallationKey.EXTERNAL_COUNTED)
    if rows is None:
        if kept is not None:
            with database.begin() as connection:
                activity_rows.begin_again(connection)
                key_values.forget(connection, InstallationKey.EXTERNAL_COUNTED)
        return activity_rows.count_events(database, now_us)
    with database.connect() as connection:
        hidden = source.hidden(connection)
    state: dict[str, Any] = orjson.loads(kept or "{}")
    known = state.get("of") == rows.mapping.fingerprint and not rows.lies_behind(state["end"])
    since_us = max(0, now_us - now_us % DAY_US - KEPT_DAYS * DAY_US)
    mark: str | None = None
    if known:
        since_us, mark = int(state["day_us"]), state["mark"]
    end = rows.end()
    if end is None:
        return 0
    counts = _Counts(since_us)
    for chunk in rows.chunks(mark, end) if rows.mapping.chunked else [None]:
        for batch in rows.batches(now_us, chunk, since_us, hidden):
            counts.add(batch)
        counts.close_days()
    hours, users = counts.rows()
    place = counts.mark(rows) or {"day_us": since_us, "mark": rows.mapping.mark(end)}
    state = {"of": rows.mapping.fingerprint, "end": rows.mapping.mark(end), **place}
    with database.begin() as connection:
        if not known:
            activity_rows.begin_again(connection)
        activity_rows.put_counts(connection, since_us, hours, users)
        key_values.put(connection, InstallationKey.EXTERNAL_COUNTED, orjson.dumps(state).decode())
    return len(users)


class _Counts:
    """Events by (hour, type) and users by day of rows that come roughly in order of time."""

    def __init__(self, since_us: int) -> None:
        self._since_us = since_us
        self._hours: Counter[tuple[int, str]] = Counter()
        self._open: dict[int, np.ndarray] = {}  # day -> hashes of its users, each once
        self._closed: dict[int, int] = {}  # day -> users
        self._first: defaultdict[int, int] = defaultdict(lambda: 2**63 - 1)  # day -> position
        self._newest_us = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch; those before the beginning are left out."""
        times = batch.column("timestamp_us").to_numpy()
        kept = times >= self._since_us
        if not kept.any():
            return
        if not kept.all():
            batch, times = batch.filter(pa.array(kept)), times[kept]
        encoded = batch.column("event_type").dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        hours, numbers = np.unique(times // HOUR_US * len(names) + codes, return_counts=True)
        for place, number in zip(hours.tolist(), numbers.tolist(), strict=True):
            self._hours[place // len(names) * HOUR_US, names[place % len(names)]] += number
        users = key_hashes(batch.column("user_id"), "u:")
        users = np.where(users == 0, key_hashes(batch.column("session_id"), "s:"), users)
        days, positions = times // DAY_US, batch.column("position").to_numpy()
        for day in np.unique(days).tolist():
            inside = days == day
            self._first[day] = min(self._first[day], int(positions[inside].min()))
            if day not in self._closed:
                known = self._open.get(day, np.zeros(0, np.uint64))
                self._open[day] = np.union1d(known, users[inside])
        self._newest_us = max(self._newest_us, int(times.max()))

    def close_days(self) -> None:
        """Where too many users are told apart, those of the oldest days are but a number from now on."""
        held = sum(map(len, self._open.values()))
        for day in sorted(self._open)[:-OPEN_DAYS]:
            if held <= MAX_HELD:
                return
            users = self._open.pop(day)
            self._closed[day], held = len(users), held - len(users)

    def rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows for the tables of counts."""
        hours = [
            {"hour_us": hour_us, "event_type": event_type, "events": number}
            for (hour_us, event_type), number in self._hours.items()
        ]
        users = {**self._closed, **{day: len(found) for day, found in self._open.items()}}
        days = [{"day_us": day * DAY_US, "users": number} for day, number in sorted(users.items())]
        return hours, days

    def mark(self, rows: ExternalRows) -> dict[str, Any]:
        """Where the next count begins: the day before the newest, and its place in the index; nothing
        where no row was counted.
        """
        if not self._first:
            return {}
        day = min(one for one in self._first if one >= self._newest_us // DAY_US - 1)
        place: Any = min(first for one, first in self._first.items() if one >= day)
        if rows.mapping.along != "order":
            # Texts with zones of their own may sort up to a day apart from their times.
            early = 1 if rows.mapping.columns["timestamp"].kind == "text" else 0
            place = rows.mapping.at((day - early) * DAY_US)
        return {"day_us": day * DAY_US, "mark": rows.mapping.mark(place)}
