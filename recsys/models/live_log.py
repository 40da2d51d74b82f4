"""The live log: what every visitor did of late, for rankers that count on where a version's data ended.

Events are kept as linked arrays in the order in which they arrived. An event points to the one before
it with the same item, and to its neighbours in its session, so that adding one is a handful of writes,
and what followed an item, or which sessions held it, is a walk from its newest event back. Codes of
items are the log's own, so that versions of different vocabularies read one log.

Legend: E events, I item codes, S sessions, O owners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recsys.events.array_types import Int32Array, Int64Array, UInt64Array
from recsys.events.identity import SESSION_BIT, SIP_START
from recsys.events.times import DAY_US
from recsys.models.lstm.kernels import compiled

NOWHERE = -1
_SESSION_BIT = int(SESSION_BIT)
# A log begins so long before the data of its oldest version ended, for what is counted over a day is
# to be whole from the first answer on. Rankers leave out what a version was trained on.
BEGINS_US_BEFORE = DAY_US
LEAST = 1_024  # places that are made at first


class LiveArrays(NamedTuple):
    """The log's arrays; places beyond what is in use hold nothing."""

    codes: Int32Array  # (E,) item of each event
    owners: Int32Array  # (E,) owner of each event
    sessions: Int32Array  # (E,) session of each event
    places: Int32Array  # (E,) place in its session, from 0
    times_us: Int64Array  # (E,)
    session_hashes: UInt64Array  # (E,) of the session id, 0 = none
    same_item: Int32Array  # (E,) the event before it with its item, or NOWHERE
    before: Int32Array  # (E,) the event before it in its session, or NOWHERE
    after: Int32Array  # (E,) the event after it in its session, or NOWHERE
    session_last: Int32Array  # (S,) the newest event of each session
    item_last: Int32Array  # (I,) the newest event of each item, or NOWHERE
    item_sessions: Int32Array  # (I,) sessions that hold the item
    owner_last: Int32Array  # (O,) the newest event of each owner, or NOWHERE


def _room(events: int, items: int, owners: int) -> LiveArrays:
    def of(count: int, dtype: type[np.generic] = np.int32) -> np.ndarray:
        return np.full(count, NOWHERE if dtype is not np.uint64 else 0, dtype)

    return LiveArrays(
        codes=of(events),
        owners=of(events),
        sessions=of(events),
        places=of(events),
        times_us=of(events, np.int64),
        session_hashes=of(events, np.uint64),
        same_item=of(events),
        before=of(events),
        after=of(events),
        session_last=of(events),
        item_last=of(items),
        item_sessions=np.zeros(items, np.int32),
        owner_last=of(owners),
    )


def owner_hash(key: str) -> int:
    """`recsys.events.identity.hash_texts` of one sequence key, in a tenth of the time.

    >>> owner_hash("u:7")
    16498074603971775433
    """
    data = key.encode()
    padded = data.ljust(len(data) // 8 * 8 + 7, b"\0") + bytes([len(data) & 0xFF])
    found = int(_siphash(np.frombuffer(padded, np.uint64), *SIP_START))
    return (found & ~_SESSION_BIT) | (key.startswith("s:") * _SESSION_BIT) | 1


@compiled
def _siphash(words: UInt64Array, a: Any, b: Any, c: Any, d: Any) -> Any:
    """SipHash-2-4 and the finaliser of SplitMix64, as `recsys.events.identity` has them, of one text."""
    a, b, c, d = np.uint64(a), np.uint64(b), np.uint64(c), np.uint64(d)
    for step in range(len(words) + 2):
        word = words[step] if step < len(words) else np.uint64(0)
        if step < len(words):
            d ^= word
        elif step == len(words):
            c ^= np.uint64(0xFF)
        for _ in range(2):
            a += b
            b = ((b << np.uint64(13)) | (b >> np.uint64(51))) ^ a
            c += d
            d = ((d << np.uint64(16)) | (d >> np.uint64(48))) ^ c
            a = (a << np.uint64(32)) | (a >> np.uint64(32))
            a += d
            d = ((d << np.uint64(21)) | (d >> np.uint64(43))) ^ a
            c += b
            b = ((b << np.uint64(17)) | (b >> np.uint64(47))) ^ c
            c = (c << np.uint64(32)) | (c >> np.uint64(32))
        a ^= word
    found = a ^ b ^ c ^ d
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


class LiveLog:
    """The newest events, at most `capacity`.

    One thread appends. Others may read meanwhile what was there when they looked: arrays are added to
    or replaced, never changed where a reader of the first `events` looks.
    """

    def __init__(self, session_gap_seconds: float, capacity: int) -> None:
        self.capacity = capacity
        self._gap_us = round(session_gap_seconds * 1e6)
        self.arrays = _room(LEAST, LEAST, LEAST)
        self.events = 0
        self.sessions = 0
        self.item_codes: dict[str, int] = {}
        self.item_ids: list[str] = []
        self._owner_codes: dict[int, int] = {}

    def __len__(self) -> int:
        return self.events

    @property
    def bytes(self) -> int:
        """What the log takes, in bytes; texts and their table as estimated."""
        return (
            sum(part.nbytes for part in self.arrays)
            + 160 * len(self.item_ids)
            + 100 * len(self._owner_codes)
        )

    def owner(self, key_hash: int) -> int:
        """The number of the owner with this hash of its sequence key, or NOWHERE."""
        return self._owner_codes.get(key_hash, NOWHERE)

    def code(self, item_id: str) -> int:
        """The item's code, or NOWHERE."""
        return self.item_codes.get(item_id, NOWHERE)

    def append(
        self,
        owner_hashes: Sequence[int],
        item_ids: Sequence[str],
        times_us: Int64Array,
        session_hashes: UInt64Array,
    ) -> LiveLog:
        """The log with n more events, in the order of their arrival.

        That is this log itself; or, where it is full, a new one without the older half, so that
        whoever reads the old one goes on reading what it was.
        """
        if len(item_ids) > self.capacity // 2:  # of so many at once, the newest
            kept = slice(len(item_ids) - self.capacity // 2, None)
            owner_hashes, item_ids = owner_hashes[kept], item_ids[kept]
            times_us, session_hashes = times_us[kept], session_hashes[kept]
        log = self
        if self.events + len(item_ids) > self.capacity:
            log = self.newest(self.capacity // 2)
        log._append(owner_hashes, item_ids, times_us, session_hashes)
        return log

    def newest(self, count: int) -> LiveLog:
        """A log of the newest `count` events, in which nothing points to what is gone."""
        found = LiveLog(self._gap_us / 1e6, self.capacity)
        held, keys = self.arrays, list(self._owner_codes)
        at = slice(max(0, self.events - count), self.events)
        found._append(
            [keys[owner] for owner in held.owners[at]],
            [self.item_ids[code] for code in held.codes[at]],
            held.times_us[at],
            held.session_hashes[at],
        )
        return found

    def _append(
        self,
        owner_hashes: Sequence[int],
        item_ids: Sequence[str],
        times_us: Int64Array,
        session_hashes: UInt64Array,
    ) -> None:
        codes, ids = self.item_codes, self.item_ids
        items = np.empty(len(item_ids), np.int32)
        for at, item_id in enumerate(item_ids):
            code = codes.get(item_id)
            if code is None:
                code = codes[item_id] = len(ids)
                ids.append(item_id)
            items[at] = code
        known = self._owner_codes
        owners = np.fromiter(
            (known.setdefault(key, len(known)) for key in owner_hashes), np.int32, len(items)
        )
        self._make_room(self.events + len(items))
        self.sessions = _append(
            self.arrays,
            self.events,
            self.sessions,
            owners,
            items,
            times_us,
            session_hashes,
            self._gap_us,
        )
        self.events += len(items)

    def _make_room(self, events: int) -> None:
        wanted = (events, len(self.item_ids), len(self._owner_codes))
        held = (len(self.arrays.codes), len(self.arrays.item_last), len(self.arrays.owner_last))
        if all(want <= have for want, have in zip(wanted, held, strict=True)):
            return
        room = [
            have if want <= have else max(2 * have, want)
            for want, have in zip(wanted, held, strict=True)
        ]
        wider = _room(*room)
        for name, old in self.arrays._asdict().items():
            getattr(wider, name)[: len(old)] = old
        self.arrays = wider


@compiled
def _append(
    log: LiveArrays,
    first: int,
    sessions: int,
    owners: Int32Array,
    items: Int32Array,
    times_us: Int64Array,
    session_hashes: UInt64Array,
    gap_us: int,
) -> int:
    """Write events from place `first` on; how many sessions there are then."""
    for n in range(len(items)):
        at, item, owner = first + n, items[n], owners[n]
        last = log.owner_last[owner]
        log.codes[at] = item
        log.owners[at] = owner
        log.times_us[at] = times_us[n]
        log.session_hashes[at] = session_hashes[n]
        log.after[at] = NOWHERE
        begins = (
            last == NOWHERE
            or log.session_hashes[last] != session_hashes[n]
            or times_us[n] - log.times_us[last] > gap_us
        )
        if begins:
            session = sessions
            sessions += 1
            log.before[at] = NOWHERE
            log.places[at] = 0
        else:
            session = log.sessions[last]
            log.before[at] = last
            log.after[last] = at
            log.places[at] = log.places[last] + 1
        log.sessions[at] = session
        log.session_last[session] = at
        again = False  # whether its session holds the item already
        back = log.before[at]
        for _ in range(50):
            if back == NOWHERE:
                break
            if log.codes[back] == item:
                again = True
                break
            back = log.before[back]
        if not again:
            log.item_sessions[item] += 1
        log.same_item[at] = log.item_last[item]
        log.item_last[item] = at
        log.owner_last[owner] = at
    return sessions
