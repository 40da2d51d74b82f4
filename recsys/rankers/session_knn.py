"""VMIS-kNN: the sessions most like this one vote for what they hold.

Kersbergen, Sprangers and Schelter, "Serenade: Low-Latency Session-Based Recommendation in
e-Commerce at Scale" (SIGMOD 2022), algorithm 1:

    similarity of a session = sum over shared items of pi(position of the item in this session)
    score of an item = sum over the K most similar sessions of
                       lambda(latest shared position) * similarity * log(S / sessions with the item)

with pi(p) = p / length, and lambda(d) = 1 - 0.1 d for a latest match d steps from the end (d < 10).
Of each item only its M most recent sessions are looked at. The index is two CSR tables: the
sessions of each item, newest first, and the items of each session.

Deviation: the score also gets a share for earlier items of this session that falls with distance
("copying"), because in many logs a third of the next items were already in the session. The share
is a setting; 0 is the paper's ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.sequences import Sequences
from recsys.data.vocabulary import FIRST_ITEM
from recsys.rankers.base import (
    NO_VOTES,
    Float32Array,
    Int32Array,
    Int64Array,
    Votes,
    add_up,
    gather,
)

RECENT_SESSIONS = 500  # M: sessions looked at for each item
NEIGHBOURS = 100  # K
WINDOW = 10  # newest items of the history that are matched
COPY_SHARE = 0.0


@dataclass(frozen=True)
class SessionKnn:
    """The VMIS-kNN index of a log's sessions."""

    name: ClassVar[str] = "session_knn"
    item_offsets: Int64Array  # (V + 1,)
    item_sessions: Int32Array  # sessions of each item, newest first, at most M
    session_offsets: Int64Array  # (S + 1,)
    session_items: Int32Array  # distinct items of each session
    idf: Float32Array  # (V,)
    copy_share: float = COPY_SHARE

    @classmethod
    def fit(cls, sequences: Sequences, rows: int, copy_share: float = COPY_SHARE) -> Self:
        known = sequences.items >= FIRST_ITEM
        starts = sequences.session_starts.copy()
        starts[sequences.offsets[:-1]] = True
        sessions = np.cumsum(starts) - 1  # (E,)
        count = int(sessions[-1]) + 1 if len(sessions) else 0
        last_us = np.zeros(count, np.int64)
        np.maximum.at(last_us, sessions, sequences.timestamps_us)
        order = np.lexsort((np.arange(count), last_us))
        age = np.empty(count, np.int64)
        age[order] = np.arange(count)  # sessions renumbered from the oldest to the newest
        pairs = np.unique(age[sessions[known]] * rows + sequences.items[known])
        session, item = pairs // rows, pairs % rows
        frequency = np.bincount(item, minlength=rows)
        idf = np.log(np.maximum(count, 1) / np.maximum(frequency, 1)).astype(np.float32)
        session_offsets = np.searchsorted(session, np.arange(count + 1))
        by_item = np.lexsort((-session, item))
        item, session_of = item[by_item], session[by_item]
        first = np.searchsorted(item, np.arange(rows + 1))
        kept = np.arange(len(item)) - first[item] < RECENT_SESSIONS
        counts = np.bincount(item[kept], minlength=rows)
        return cls(
            item_offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            item_sessions=session_of[kept].astype(np.int32),
            session_offsets=session_offsets.astype(np.int64),
            session_items=(pairs % rows).astype(np.int32),
            idf=idf,
            copy_share=copy_share,
        )

    def votes(self, history: Int32Array) -> Votes:
        recent = history[-WINDOW:]
        if len(recent) == 0:
            return NO_VOTES
        # An item seen twice counts at its latest place.
        newest_first, at = np.unique(recent[::-1], return_index=True)
        distance = at[newest_first >= FIRST_ITEM]  # 0 = the last item
        items = newest_first[newest_first >= FIRST_ITEM].astype(np.int64)
        if len(items) == 0:
            return NO_VOTES
        places, of = gather(self.item_offsets, items)
        if len(places) == 0:
            return NO_VOTES
        sessions = self.item_sessions[places]
        length = len(recent)
        found, number = np.unique(sessions, return_inverse=True)
        similarity = np.bincount(number, (length - distance[of]) / length)
        nearest = np.full(len(found), WINDOW)
        np.minimum.at(nearest, number, distance[of])
        if len(found) > NEIGHBOURS:
            # Most similar first, of equals the newest: sessions are numbered by age.
            best = np.lexsort((-found, -similarity))[:NEIGHBOURS]
            found, similarity, nearest = found[best], similarity[best], nearest[best]
        weight = similarity * (1.0 - 0.1 * nearest)
        places, of = gather(self.session_offsets, found.astype(np.int64))
        voted = self.session_items[places]
        candidates, scores = add_up(voted, weight[of] * self.idf[voted])
        if self.copy_share > 0:
            share = self.copy_share * float(scores.max(initial=0.0)) / (1.0 + distance)
            candidates, scores = add_up(
                np.concatenate((candidates, items.astype(np.int32))),
                np.concatenate((scores, share)),
            )
        positive = scores > 0
        return candidates[positive], scores[positive]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "item_offsets": self.item_offsets,
            "item_sessions": self.item_sessions,
            "session_offsets": self.session_offsets,
            "session_items": self.session_items,
            "idf": self.idf,
            "copy_share": np.array([self.copy_share]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        return cls(
            item_offsets=arrays["item_offsets"],
            item_sessions=arrays["item_sessions"],
            session_offsets=arrays["session_offsets"],
            session_items=arrays["session_items"],
            idf=arrays["idf"],
            copy_share=float(arrays["copy_share"][0]),
        )
