"""Session kNN: the sessions most like this one vote for what they hold.

VMIS-kNN, from Kersbergen, Sprangers and Schelter, "Serenade: Low-Latency Session-Based
Recommendation in e-Commerce at Scale" (SIGMOD 2022), algorithm 1:

    similarity of a session = sum over shared items of pi(position of the item in this session)
    score of an item = sum over the K most similar sessions of
                       lambda(latest shared position) * similarity * log(S / sessions with the item)

with pi(p) = p / length, and lambda(d) = 1 - 0.1 d for a latest match d steps from the end (d < 10).
Of each item only its M most recent sessions are looked at. The index is two CSR tables: the
sessions of each item, newest first, and the items of each session, both with the item's place.

Two additions, both settings that validation chooses, both off in the paper's ranking:

`order_decay`  a neighbour's item votes with exp(-steps / order_decay) for its steps from the latest
               match, one step ahead counting as none: after VSTAN (Ludewig, Mauro, Latifi and
               Jannach, "Empirical analysis of session-based recommendation algorithms", 2021).
`copy_share`   a share for earlier items of this session that falls with distance, because in many
               logs a third of the next items were already in the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from recsys.events.array_types import AnyArray, Float32Array, Int32Array, Int64Array
from recsys.events.sequences import Sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.live_log import NOWHERE
from recsys.models.live_view import LiveMoment
from recsys.models.live_votes import newest_distinct, session_votes, vote_tables
from recsys.models.ranker import NO_VOTES, Ranker, Votes, add_up, gather

RECENT_SESSIONS = 500  # M: sessions looked at for each item
NEIGHBOURS = 100  # K
WINDOW = 10  # newest items of the history that are matched


@dataclass(frozen=True)
class SessionKnn(Ranker):
    """The index of a log's sessions. An item twice in a session counts at its last place."""

    name: ClassVar[str] = "session_knn"
    label: ClassVar[str] = "session kNN"
    visitor_label: ClassVar[str] = "similar visits"
    search_space: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "order_decay": (0.0, 1.5, 3.0, 6.0),
        "copy_share": (0.0, 0.3, 0.6, 1.0),
    }
    untuned_name: ClassVar[str | None] = "vmis_knn"  # the paper's
    item_offsets: Int64Array  # (V + 1,)
    item_sessions: Int32Array  # sessions of each item, newest first, at most M
    item_places: Int32Array  # where in that session the item stands
    session_offsets: Int64Array  # (S + 1,)
    session_items: Int32Array  # distinct items of each session
    session_places: Int32Array  # where each stands
    idf: Float32Array  # (V,)
    order_decay: float = 0.0  # steps; 0 = off
    copy_share: float = 0.0  # of the best vote; 0 = off

    @classmethod
    def fit(cls, sequences: Sequences, rows: int) -> Self:
        known = sequences.items >= FIRST_ITEM
        starts = sequences.session_starts.copy()
        starts[sequences.offsets[:-1]] = True
        heads = np.flatnonzero(starts)
        sessions = np.cumsum(starts) - 1  # (E,)
        count = len(heads)
        last_us = np.zeros(count, np.int64)
        np.maximum.at(last_us, sessions, sequences.timestamps_us)
        order = np.lexsort((np.arange(count), last_us))
        age = np.empty(count, np.int64)
        age[order] = np.arange(count)  # sessions renumbered from the oldest to the newest
        keys = (age[sessions] * rows + sequences.items)[known]
        places = (np.arange(sequences.event_count) - heads[sessions])[known]
        by_key = np.argsort(keys, kind="stable")  # within a key, the last place comes last
        last = np.append(keys[by_key][1:] != keys[by_key][:-1], True)[: len(keys)]
        pairs, places = keys[by_key][last], places[by_key][last]
        session, item = pairs // rows, pairs % rows
        frequency = np.bincount(item, minlength=rows)
        idf = np.log(max(count, 1) / np.maximum(frequency, 1)).astype(np.float32)
        by_item = np.lexsort((-session, item))
        of = item[by_item]
        kept = np.arange(len(of)) - np.searchsorted(of, np.arange(rows + 1))[of] < RECENT_SESSIONS
        counts = np.bincount(of[kept], minlength=rows)
        return cls(
            item_offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            item_sessions=session[by_item][kept].astype(np.int32),
            item_places=places[by_item][kept].astype(np.int32),
            session_offsets=np.searchsorted(session, np.arange(count + 1)).astype(np.int64),
            session_items=item.astype(np.int32),
            session_places=places.astype(np.int32),
            idf=idf,
        )

    def votes(self, history: Int32Array) -> Votes:
        recent = history[-WINDOW:]
        if len(recent) == 0:
            return NO_VOTES
        # An item seen twice counts at its latest place.
        newest_first, at = np.unique(recent[::-1], return_index=True)
        known = newest_first >= FIRST_ITEM
        distance, items = at[known], newest_first[known].astype(np.int64)  # 0 = the last item
        if len(items) == 0:
            return NO_VOTES
        places, of = gather(self.item_offsets, items)
        if len(places) == 0:
            return NO_VOTES
        sessions = self.item_sessions[places]
        length = len(recent)
        found, number = np.unique(sessions, return_inverse=True)
        similarity = np.bincount(number, (length - distance[of]) / length)
        # The latest match of each session: written last where the oldest matches go first.
        oldest_first = np.argsort(-distance[of], kind="stable")
        nearest = np.empty(len(found), np.int64)
        nearest[number[oldest_first]] = distance[of][oldest_first]
        matched = np.empty(len(found), np.int64)
        matched[number[oldest_first]] = self.item_places[places][oldest_first]
        if len(found) > NEIGHBOURS:
            # Most similar first, of equals the newest: sessions are numbered by age.
            best = np.lexsort((-found, -similarity))[:NEIGHBOURS]
            found, similarity = found[best], similarity[best]
            nearest, matched = nearest[best], matched[best]
        weight = similarity * (1.0 - 0.1 * nearest)
        places, of = gather(self.session_offsets, found.astype(np.int64))
        voted = self.session_items[places]
        vote = weight[of] * self.idf[voted]
        if self.order_decay > 0:
            ahead = self.session_places[places] - matched[of]
            vote = vote * np.exp(-np.where(ahead > 0, ahead - 1, -ahead) / self.order_decay)
        candidates, scores = add_up(voted, vote)
        if self.copy_share > 0:
            share = self.copy_share * float(scores.max(initial=0.0)) / (1.0 + distance)
            candidates, scores = add_up(
                np.concatenate((candidates, items.astype(np.int32))),
                np.concatenate((scores, share)),
            )
        positive = scores > 0
        return candidates[positive], scores[positive]

    def live_votes(self, history: Int32Array, moment: LiveMoment) -> Votes:
        recent = history[-WINDOW:]
        rows, distance = newest_distinct(recent)
        if len(rows) == 0:
            return NO_VOTES
        known = len(self.idf)
        return session_votes(
            moment.arrays,
            moment.events,
            moment.view.since_us,
            moment.owner,
            moment.codes(rows),
            np.where(rows < known, rows, NOWHERE).astype(np.int32),
            distance,
            len(recent),
            moment.row_of,
            moment.view.code_of,
            self.item_offsets,
            self.item_sessions,
            self.item_places,
            self.session_offsets,
            self.session_items,
            self.session_places,
            self._frequency,
            self._session_count,
            self._session_count + moment.sessions,
            self.order_decay,
            RECENT_SESSIONS,
            NEIGHBOURS,
            vote_tables(),
        )

    @cached_property
    def _frequency(self) -> Int32Array:
        """Sessions that hold each item; (V,)."""
        return np.bincount(self.session_items, minlength=len(self.idf)).astype(np.int32)

    @property
    def _session_count(self) -> int:
        return len(self.session_offsets) - 1

    def as_component(self) -> Self:
        return replace(self, copy_share=0.0)

    def arrays(self) -> dict[str, AnyArray]:
        return {
            "item_offsets": self.item_offsets,
            "item_sessions": self.item_sessions,
            "item_places": self.item_places,
            "session_offsets": self.session_offsets,
            "session_items": self.session_items,
            "session_places": self.session_places,
            "idf": self.idf,
            "settings": np.array([self.order_decay, self.copy_share]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        names = ("item_offsets", "item_sessions", "item_places", "session_offsets")
        rest = ("session_items", "session_places", "idf")
        order_decay, copy_share = arrays["settings"].tolist()
        return cls(
            **{name: arrays[name] for name in (*names, *rest)},
            order_decay=order_decay,
            copy_share=copy_share,
        )
