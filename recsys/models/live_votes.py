"""What the live log adds to rankers that count, as compiled walks over it.

Events of the asker are left out: they are the history that is asked for. Of one owner's events of an
item the newest alone count, so that nobody weighs more than one.

Legend: n items of a history, E events, I codes, V vocabulary rows, S sessions of a version.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from recsys.events.array_types import Float32Array, Int32Array, Int64Array
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.live_log import NOWHERE, LiveArrays
from recsys.models.lstm.kernels import compiled, kth_largest

SESSIONS = 16_384  # places of the table of sessions in sight, a power of two: 10 items, 500 of each
VOTED = 32_768  # places of the table of items that are voted for
LONGEST = 50  # newest events of a session that vote
OWNERS = 4_096  # places of the table of owners of one item
FREE = -1


class VoteTables(NamedTuple):
    """Open hash tables, which a thread keeps: between calls all keys are FREE, and votes zero."""

    sessions: Int64Array  # (SESSIONS,) keys, and by their places:
    similarity: Float32Array
    nearest: Int32Array
    matched: Int32Array
    session_slots: Int32Array  # the places in use, in order of arrival
    items: Int64Array  # (VOTED,) keys, and by their places:
    votes: Float32Array
    item_slots: Int32Array
    owners: Int64Array  # (OWNERS,) keys


class _Kept(threading.local):
    tables: VoteTables | None = None


_kept = _Kept()


def vote_tables() -> VoteTables:
    """The calling thread's own."""
    if _kept.tables is None:
        _kept.tables = VoteTables(
            np.full(SESSIONS, FREE, np.int64),
            np.zeros(SESSIONS, np.float32),
            np.zeros(SESSIONS, np.int32),
            np.zeros(SESSIONS, np.int32),
            np.zeros(SESSIONS, np.int32),
            np.full(VOTED, FREE, np.int64),
            np.zeros(VOTED, np.float32),
            np.zeros(VOTED, np.int32),
            np.full(OWNERS, FREE, np.int64),
        )
    return _kept.tables


@compiled
def find(keys: Int64Array, key: int) -> int:
    """The place of `key` in an open table of a power of two places, or the free one where it goes."""
    mask = len(keys) - 1
    at = int(np.int64(key) * np.int64(2_654_435_761)) & mask
    while keys[at] != FREE and keys[at] != key:
        at = (at + 1) & mask
    return at


@compiled
def add_vote(
    keys: Int64Array, votes: Float32Array, slots: Int32Array, count: int, row: int, vote: np.float32
) -> int:
    """Add a vote for a row to the table; how many rows it holds then. A full one takes no new row."""
    slot = find(keys, row)
    if keys[slot] == FREE:
        if count >= len(keys) // 2:
            return count
        keys[slot] = row
        slots[count] = slot
        count += 1
    votes[slot] += vote
    return count


@compiled
def take_votes(
    keys: Int64Array, votes: Float32Array, slots: Int32Array, count: int
) -> tuple[Int32Array, Float32Array]:
    """The rows of a table of votes, ascending, and their votes; the table is empty after that."""
    rows = np.sort(keys[slots[:count]])
    found = np.empty(count, np.float32)
    for n in range(count):
        found[n] = votes[find(keys, rows[n])]
    for slot in slots[:count]:
        keys[slot], votes[slot] = FREE, np.float32(0)
    return rows.astype(np.int32), found


@compiled
def newest_distinct(history: Int32Array) -> tuple[Int32Array, Int32Array]:
    """The distinct items of a history (T,), the newest first, and how many events each lies back."""
    rows, distances = np.empty(len(history), np.int32), np.empty(len(history), np.int32)
    count = 0
    for back in range(len(history)):
        row = history[len(history) - 1 - back]
        if row < FIRST_ITEM or (rows[:count] == row).any():
            continue
        rows[count], distances[count] = row, back
        count += 1
    return rows[:count], distances[:count]


@compiled
def look_up(rows: Int32Array, code_of: Int32Array, codes: int) -> tuple[Int32Array, bool]:
    """The codes (n,) of rows (n,), NOWHERE where one is not below `codes`, and whether a row is beyond `code_of`."""
    found, beyond = np.full(len(rows), NOWHERE, np.int32), False
    for n in range(len(rows)):
        if rows[n] >= len(code_of):
            beyond = True
        elif code_of[rows[n]] < codes:
            found[n] = code_of[rows[n]]
    return found, beyond


@compiled
def step_votes(
    log: LiveArrays,
    end: int,
    since_us: int,
    asker: int,
    codes: Int32Array,
    row_of: Int32Array,
    ahead: int,
    walked: int,
    tables: VoteTables,
) -> tuple[Int32Array, Float32Array]:
    """Rows that followed a history's items within `ahead` steps, and votes for them.

    codes (n,), newest first: item number d (from 1) votes with 1 / (d * steps). Of each the newest
    `walked` events are looked at, those after `since_us` among the first `end` of the log.
    """
    keys, votes, slots, owners = tables.items, tables.votes, tables.item_slots, tables.owners
    used = np.empty(walked, np.int32)
    count = 0
    for n in range(len(codes)):
        if codes[n] == NOWHERE:
            continue
        event = log.item_last[codes[n]]
        taken = 0
        for _ in range(walked):
            if event == NOWHERE or log.times_us[event] <= since_us:
                break
            owner = log.owners[event]
            then = log.after[event]
            if event < end and owner != asker and NOWHERE < then < end:
                place = find(owners, owner)
                if owners[place] == FREE:
                    owners[place] = owner
                    used[taken] = place
                    taken += 1
                    for step in range(1, ahead + 1):
                        if not NOWHERE < then < end:
                            break
                        vote = np.float32(1.0) / np.float32((n + 1) * step)
                        row = row_of[log.codes[then]]
                        count = add_vote(keys, votes, slots, count, row, vote)
                        then = log.after[then]
            event = log.same_item[event]
        for m in range(taken):
            owners[used[m]] = FREE
    return take_votes(keys, votes, slots, count)


@compiled
def session_votes(
    log: LiveArrays,
    end: int,
    since_us: int,
    asker: int,
    codes: Int32Array,
    rows: Int32Array,
    distances: Int32Array,
    length: int,
    row_of: Int32Array,
    code_of: Int32Array,
    item_offsets: Int64Array,
    item_sessions: Int32Array,
    item_places: Int32Array,
    session_offsets: Int64Array,
    session_items: Int32Array,
    session_places: Int32Array,
    frequency: Int32Array,
    session_count: int,
    total: float,
    order_decay: float,
    recent_sessions: int,
    neighbours: int,
    tables: VoteTables,
) -> tuple[Int32Array, Float32Array]:
    """`SessionKnn.votes` over a version's sessions and the live log's, which are newer.

    row_of (I,) and code_of (V,): the row of each code and the code of each row, or NOWHERE. codes,
    rows and distances (n,): the distinct items of the newest `length` events, the newest
    first; a code or row is NOWHERE where the log or the version lacks the item. The sessions of the
    version are numbered 0 to S - 1 from the oldest, those of the log from S on; `total` is how many
    there are of both.
    """
    keys, similarity, slots = tables.sessions, tables.similarity, tables.session_slots
    nearest, matched, owners = tables.nearest, tables.matched, tables.owners
    used = np.empty(recent_sessions, np.int32)
    count = 0
    for n in range(len(codes)):
        share = np.float32(length - distances[n]) / np.float32(length)
        taken = 0
        event = log.item_last[codes[n]] if codes[n] != NOWHERE else NOWHERE
        for _ in range(4 * recent_sessions):
            if event == NOWHERE or taken == recent_sessions or log.times_us[event] <= since_us:
                break
            owner = log.owners[event]
            if event < end and owner != asker:
                place = find(owners, owner)
                if owners[place] == FREE:
                    owners[place] = owner
                    used[taken] = place
                    taken += 1
                    slot = find(keys, session_count + log.sessions[event])
                    if keys[slot] == FREE and count < SESSIONS // 2:
                        keys[slot] = session_count + log.sessions[event]
                        slots[count] = slot
                        count += 1
                        nearest[slot], matched[slot] = distances[n], log.places[event]
                    similarity[slot] += share
            event = log.same_item[event]
        for m in range(taken):
            owners[used[m]] = FREE
        if rows[n] != NOWHERE:
            first, last = item_offsets[rows[n]], item_offsets[rows[n] + 1]
            for place in range(first, min(last, first + recent_sessions - taken)):
                slot = find(keys, item_sessions[place])
                if keys[slot] == FREE and count < SESSIONS // 2:
                    keys[slot] = item_sessions[place]
                    slots[count] = slot
                    count += 1
                    nearest[slot], matched[slot] = distances[n], item_places[place]
                similarity[slot] += share
    opened = slots[:count]
    chosen = opened
    if count > neighbours:
        # Most similar first, of equals the newest.
        strength, level = np.empty(count, np.float32), np.empty(count, np.int64)
        for n in range(count):
            strength[n] = similarity[opened[n]]
        edge = kth_largest(strength, neighbours)
        above, equal = 0, 0
        for slot in opened:
            above += similarity[slot] > edge
            if similarity[slot] == edge:
                level[equal] = keys[slot]
                equal += 1
        newest = kth_largest(level[:equal], neighbours - above)
        chosen = np.empty(neighbours, np.int32)
        kept = 0
        for slot in opened:
            alike = similarity[slot] == edge and keys[slot] >= newest
            if similarity[slot] > edge or alike:
                chosen[kept] = slot
                kept += 1

    voted, votes, places = tables.items, tables.votes, tables.item_slots
    here = np.empty(LONGEST, np.int32)
    sessions = np.float32(total)
    count = 0
    for slot in chosen:
        weight = similarity[slot] * (np.float32(1.0) - np.float32(0.1) * np.float32(nearest[slot]))
        if keys[slot] < session_count:
            first, last = session_offsets[keys[slot]], session_offsets[keys[slot] + 1]
            for place in range(first, last):
                row = session_items[place]
                held = frequency[row]
                if code_of[row] != NOWHERE:
                    held += log.item_sessions[code_of[row]]
                vote = weight * np.log(sessions / np.float32(max(held, 1)))
                if order_decay > 0:
                    steps = session_places[place] - matched[slot]
                    steps = steps - 1 if steps > 0 else -steps
                    vote *= np.float32(np.exp(-steps / order_decay))
                if vote > 0:
                    count = add_vote(voted, votes, places, count, row, vote)
            continue
        event = log.session_last[keys[slot] - session_count]
        held = 0
        while event >= end:
            event = log.before[event]
        while event != NOWHERE and held < LONGEST:
            code = log.codes[event]
            again = False
            for m in range(held):
                again = again or here[m] == code
            here[held] = code
            held += 1
            if not again:
                row = row_of[code]
                known = frequency[row] if row < len(frequency) else 0
                vote = weight * np.log(
                    sessions / np.float32(max(known + log.item_sessions[code], 1))
                )
                if order_decay > 0:
                    steps = log.places[event] - matched[slot]
                    steps = steps - 1 if steps > 0 else -steps
                    vote *= np.float32(np.exp(-steps / order_decay))
                if vote > 0:
                    count = add_vote(voted, votes, places, count, row, vote)
            event = log.before[event]
    for slot in opened:
        keys[slot], similarity[slot] = FREE, np.float32(0)
    return take_votes(voted, votes, places, count)
