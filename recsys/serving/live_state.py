"""The live state: what everyone did since the deployed versions' data ended, as this process follows it.

A thread reads what is new in the event log every `serving.live_seconds` and adds it to a `LiveLog`, which
rankers read. Where something stands in it that should not, for a user was erased or merged or an import
was undone, the log is read anew and swapped whole. With the database away it grows older, and says so.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import structlog

from recsys.config import Settings
from recsys.errors import RecsysError
from recsys.events.array_types import BoolArray
from recsys.events.times import DAY_US
from recsys.models.bundle import Bundle
from recsys.models.live_log import BEGINS_US_BEFORE, NOWHERE, LiveLog, owner_hash
from recsys.models.live_view import LiveView
from recsys.models.text_encoder import configured_encoder
from recsys.serving.newest_items import SHARE, NewestItems
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.live_events import EventFollower, LiveBatch
from recsys.storage.entities.live_marks import LiveMarks, read_live_marks
from recsys.storage.events_source import EventsSource

log = structlog.get_logger(__name__)

VIEWS = 3  # versions whose view of the log is kept: champion, control, and one that goes
AT_ONCE = 1_000  # events that are added while readers wait
TURN_EVENTS = 20_000  # of one turn; what is left comes with the next
OLD_SECONDS, OLD_TURNS = 10.0, 10.0  # the age after which answers say so
MAX_OUTSIDE = 2_000  # items outside the catalogue that are looked for once it changes
ITEM_BYTES = 150  # of an item id that is remembered


class LiveState:
    """The live log of one process. Nothing connects at construction.

    `moment` is what a request reads: the log as it stands then, whatever is added meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        source: EventsSource,
        clock: Callable[[], float],
    ) -> None:
        """`clock` gives seconds that never go back, such as time.monotonic."""
        self._lock = threading.Lock()  # of the log and of what versions make of it
        self._views: dict[str, LiveView] = {}  # by version
        self._seconds = settings.serving.live_seconds
        self._capacity = settings.serving.live_events
        self._retention_us = settings.events.retention_days * DAY_US
        sequences = settings.sequences
        self._gap_seconds = sequences.session_gap_minutes * 60
        inputs, targets = sequences.input_event_types, sequences.target_event_types
        self._types = frozenset({*inputs, *targets} if inputs else ())  # empty: all
        self._database, self._source, self._clock = database, source, clock
        self.log = self._new_log()
        self._follower: EventFollower | None = None
        self._marks: LiveMarks | None = None  # that the log follows
        self._data_end_us = 0  # of the oldest version deployed when the log was begun
        self._since_us = 0  # after which its events are
        self._items = _CatalogueItems()
        self._catalogue = NewestItems(partial(configured_encoder, settings.model))
        self._turn = threading.Lock()
        self._merge_at = float("-inf")  # merges are followed then at the earliest
        self._current_at: float | None = None  # when it was last known to hold everything
        self._begun_at = clock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def age_seconds(self) -> float:
        """How long ago it last held everything that was stored; since the start where it never did."""
        since = self._begun_at if self._current_at is None else self._current_at
        return max(0.0, self._clock() - since)

    @property
    def bytes(self) -> int:
        """What it takes, in bytes."""
        follower = self._follower
        held = self.log.bytes + self._items.bytes + self._catalogue.bytes
        held += sum(view.bytes for view in list(self._views.values()))
        return held + (follower.bytes if follower is not None else 0)

    @property
    def degraded(self) -> str | None:
        """What an answer is to say of its age; None while it is fresh."""
        age = self.age_seconds
        if age <= max(OLD_SECONDS, OLD_TURNS * self._seconds):
            return None
        return f"what others did lately is {age:.0f} seconds old"

    def at_moment(
        self, bundle: Bundle, owner_key: str | None, item_ids: Sequence[str], now_us: int
    ) -> Bundle:
        """`bundle` with the live log as it stands now, for an asker whose history holds `item_ids`.

        `owner_key`: the asker's sequence key, whose own events give no votes.
        """
        asker = NOWHERE if owner_key is None else owner_hash(owner_key)
        with self._lock:
            view = self._views.get(bundle.version)
            if view is None:
                view = LiveView.of(bundle, bundle.facts.data_end_us)
                view.catch_up(self.log)
                view.describe(view.priors(self._catalogue.contents))
                newest = list(self._views.items())[-(VIEWS - 1) :]
                self._views = {**dict(newest), bundle.version: view}
            view.catch_up(self.log)
            moment = view.moment(item_ids, self.log.owner(asker), now_us)
        return bundle.with_live(moment)

    def start(self, noted: Callable[[], None] = lambda: None) -> None:
        """Follow the log in a thread of this process, until `stop`; `noted` is called after each turn."""
        if self._thread is None:
            run = partial(self._run, noted)
            self._thread = threading.Thread(target=run, name="live", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and close its connections."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._forget()

    def follow_once(self, now_us: int) -> int:
        """Add what is new, or read the log anew where that is due; how many events were added.

        Raises StorageUnavailableError, ConfigError where an external table cannot be followed. What was
        in the log stays then.
        """
        with self._turn:
            began = self._clock()
            with self._database.read() as connection:
                marks = read_live_marks(connection, self._marks)
                is_outdated = self._is_outdated(connection, marks, now_us)
                described = [one for one in list(self._views.values()) if one.reads_content]
                if described and self._catalogue.follow(connection, marks.items, self._clock):
                    self._describe(described)
            if marks.data_end_us is None:  # nothing is deployed, and nobody reads it
                self._current_at = began
                return 0
            if is_outdated:
                return self._read_anew(marks, marks.data_end_us, now_us)
            assert self._follower is not None
            added, more = 0, True
            while more and added < TURN_EVENTS:
                batch = self._follower.read(now_us)
                added += self._add(self.log, batch)[0]
                more = batch.more
            if not more:
                self._current_at = began
            return added

    def _describe(self, views: Sequence[LiveView]) -> None:
        """Give `views` what the catalogue tells of their new items."""
        for view in views:
            priors = view.priors(self._catalogue.contents)
            with self._lock:
                view.describe(priors)

    def _run(self, noted: Callable[[], None]) -> None:
        problem = ""
        while not self._stopped.is_set():
            began, before = self._clock(), self.log
            try:
                self.follow_once(time.time_ns() // 1_000)
                problem = ""
            except RecsysError as error:
                if str(error) != problem:
                    log.warning("the live state is not brought up to date", reason=str(error))
                problem = str(error)
            except Exception:
                log.exception("following events failed")
            noted()
            spent = self._clock() - began
            was_anew = self.log is not before
            pause = self._seconds if was_anew else max(self._seconds, SHARE * spent)
            self._stopped.wait(pause)

    def _is_outdated(self, connection: Connection, marks: LiveMarks, now_us: int) -> bool:
        """Whether the log is to be read anew."""
        held = self._marks
        if self._follower is None or held is None:
            return True
        if (marks.tombstones, marks.removals) != (held.tombstones, held.removals):
            return True
        # After a roll back it begins too late, and after the first that tells where, too early.
        end_us, begun_us = marks.data_end_us or 0, self._data_end_us
        if marks.deployments != held.deployments and (not begun_us or end_us < begun_us):
            return True
        if self._retention_us and self._since_us < now_us - self._retention_us - DAY_US:
            return True
        if marks.aliases != held.aliases and self._clock() >= self._merge_at:
            return True
        if marks.items != held.items and self._items.has_changed(connection):
            return True
        self._marks = marks._replace(aliases=held.aliases)
        return False

    def _read_anew(self, marks: LiveMarks, data_end_us: int, now_us: int) -> int:
        began = self._clock()
        self._forget()
        since_us = data_end_us - BEGINS_US_BEFORE
        if self._retention_us:
            since_us = max(since_us, now_us - self._retention_us)
        follower = self._source.follow(since_us, self._capacity)
        made, self._items = self._new_log(), _CatalogueItems()
        added, more = 0, True
        try:
            while more and not self._stopped.is_set():
                batch = follower.read(now_us)
                count, made = self._add(made, batch, alone=True)
                added += count
                more = batch.more
        except BaseException:
            follower.close()
            raise
        with self._lock:
            self.log = made
        self._follower, self._marks = follower, marks
        self._data_end_us, self._since_us = data_end_us, since_us
        self._current_at = began
        self._merge_at = self._clock() + SHARE * (self._clock() - began)
        return added

    def _add(self, to: LiveLog, batch: LiveBatch, *, alone: bool = False) -> tuple[int, LiveLog]:
        """Add the events that count; how many, and the log then. `alone`: nobody reads it yet."""
        kept = np.ones(len(batch), np.bool_)
        if self._types:
            kept &= np.array([name in self._types for name in batch.event_types], np.bool_)
        kept &= self._trusted(batch, kept)
        batch = batch.chosen(kept)
        owners, sessions = batch.owner_hashes.tolist(), batch.session_hashes
        for at in range(0, len(batch), AT_ONCE):
            part = slice(at, at + AT_ONCE)
            added = (
                owners[part],
                batch.item_ids[part],
                batch.times_us[part],
                sessions[part],
            )
            if alone:
                to = to.append(*added)
            else:
                with self._lock:
                    to = self.log = self.log.append(*added)
        return len(batch), to

    def _trusted(self, batch: LiveBatch, kept: BoolArray) -> BoolArray:
        """Events (n,) of users, and those of sessions whose item is in the catalogue, where there is
        one: a page's key posts for sessions, and any text.
        """
        asked = np.flatnonzero(kept & ~batch.of_users).tolist()
        if not asked:
            return kept
        outside = self._items.outside(self._database, {batch.item_ids[place] for place in asked})
        found = kept.copy()
        found[[place for place in asked if batch.item_ids[place] in outside]] = False
        return found

    def _new_log(self) -> LiveLog:
        return LiveLog(self._gap_seconds, self._capacity)

    def _forget(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._follower = None


class _CatalogueItems:
    """Which items of sessions' events are in the catalogue; each is asked for once."""

    def __init__(self) -> None:
        self._is_there: bool | None = None  # whether there is a catalogue; None: not asked yet
        self._inside: set[str] = set()
        self._outside: OrderedDict[str, None] = OrderedDict()  # the last MAX_OUTSIDE

    @property
    def bytes(self) -> int:
        return ITEM_BYTES * (len(self._inside) + len(self._outside))

    def outside(self, database: Database, item_ids: set[str]) -> set[str]:
        """Those of `item_ids` that the catalogue lacks; none where there is no catalogue."""
        unknown = sorted(item_ids - self._inside - self._outside.keys())
        if unknown and self._is_there is not False:
            with database.read() as connection:
                self._is_there = item_rows.has_items(connection)
                lacking = item_rows.outside(connection, unknown)
            if self._is_there:
                self._inside.update(one for one in unknown if one not in lacking)
            self._outside.update(dict.fromkeys(one for one in unknown if one in lacking))
        found = item_ids & self._outside.keys()
        while len(self._outside) > MAX_OUTSIDE:
            self._outside.popitem(last=False)
        return found

    def has_changed(self, connection: Connection) -> bool:
        """Whether the catalogue came or went, or holds an item now that it lacked."""
        if self._is_there is None:
            return False
        if item_rows.has_items(connection) != self._is_there:
            return True
        asked = list(self._outside)
        return bool(asked) and len(item_rows.outside(connection, asked)) < len(asked)
