"""Split by time: training events are strictly before the cut, evaluation positions at or after it.

Every event at or after the cut is a position to be predicted from everything before it, returning
users included: keeping only users who start after the cut throws most of a user log away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.events.array_types import BoolArray, Int32Array, Int64Array
from recsys.events.large_arrays import kth_smallest
from recsys.events.sequences import Histories, Sequences
from recsys.events.vocabulary import FIRST_ITEM


@dataclass(frozen=True)
class Baskets:
    """P sets of items laid end to end; set p is items[offsets[p]:offsets[p + 1]]."""

    offsets: Int64Array  # (P + 1,)
    items: Int32Array

    def __getitem__(self, number: int) -> Int32Array:
        return self.items[self.offsets[number] : self.offsets[number + 1]]

    def select(self, numbers: Int64Array) -> Baskets:
        """The sets at `numbers`."""
        lengths = np.diff(self.offsets)[numbers]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Baskets(offsets, self.items[np.repeat(self.offsets[numbers], lengths) + within])


@dataclass(frozen=True)
class Positions:
    """P evaluation positions: each a history, the target item that came next, and its sequence.

    Where most steps of a log tie in time, order within a moment is an accident of the log: the
    target is then any item of the next moment, and `baskets` holds them all.
    """

    histories: Histories  # P histories
    targets: Int32Array  # (P,) item index; UNKNOWN where training never saw the item
    owners: Int64Array  # (P,) sequence number, the unit of the bootstrap
    returning: BoolArray  # (P,) the sequence has an event before the cut
    baskets: Baskets | None = (
        None  # all items of each target moment; `targets` holds one that is known
    )

    def __len__(self) -> int:
        return len(self.targets)

    def wanted(self, number: int) -> Int32Array:
        """The items any of which is a hit, at position `number`."""
        if self.baskets is None:
            return self.targets[number : number + 1]
        return self.baskets[number]

    def sample(self, limit: int, rng: np.random.Generator) -> Positions:
        """At most `limit` positions, drawn by whole sequences so that the bootstrap stays valid."""
        if len(self) <= limit:
            return self
        owners = rng.permutation(np.unique(self.owners))
        counts = np.bincount(self.owners)[owners]
        chosen = owners[: max(1, int(np.searchsorted(np.cumsum(counts), limit, side="right")))]
        return self.where(np.isin(self.owners, chosen))

    def where(self, mask: BoolArray) -> Positions:
        kept = np.flatnonzero(mask)
        return Positions(
            histories=self.histories.select(kept),
            targets=self.targets[kept],
            owners=self.owners[kept],
            returning=self.returning[kept],
            baskets=None if self.baskets is None else self.baskets.select(kept),
        )

    @property
    def known(self) -> Positions:
        """The positions whose target training has seen."""
        return self.where(self.targets >= FIRST_ITEM)


def events_before(sequences: Sequences, cut_us: int) -> Sequences:
    """The training part: events strictly before `cut_us`."""
    return sequences.keep(sequences.timestamps_us < cut_us)


def positions_from(
    sequences: Sequences,
    cut_us: int,
    end_us: int | None = None,
    target_mask: BoolArray | None = None,
) -> Positions:
    """Every event in [cut_us, end_us) that has a predecessor in its sequence, as a position.

    target_mask (E,): which events count as targets; None means all.
    """
    is_target = sequences.timestamps_us >= cut_us
    if end_us is not None:
        is_target &= sequences.timestamps_us < end_us
    if target_mask is not None:
        is_target &= target_mask
    is_target[sequences.offsets[:-1]] = False  # a first event has no history
    ends = np.flatnonzero(is_target).astype(np.int64)
    owners = np.searchsorted(sequences.offsets, ends, side="right") - 1
    starts = sequences.offsets[owners]
    return Positions(
        histories=sequences.slices(starts, ends),
        targets=sequences.items[ends],
        owners=owners.astype(np.int64),
        returning=sequences.timestamps_us[starts] < cut_us,
    )


def tied_share(sequences: Sequences) -> float:
    """The share of steps within sequences whose two events have the same time."""
    inner = np.ones(sequences.event_count, np.bool_)
    inner[sequences.offsets[:-1]] = False
    tied = np.zeros(sequences.event_count, np.bool_)
    np.equal(sequences.timestamps_us[1:], sequences.timestamps_us[:-1], out=tied[1:])
    return float((tied & inner).sum()) / max(1, int(inner.sum()))


def baskets_from(
    sequences: Sequences,
    cut_us: int,
    end_us: int | None = None,
    target_mask: BoolArray | None = None,
) -> Positions:
    """Every moment in [cut_us, end_us) that has a predecessor, as a position: what was before it is
    the history, any item of it a hit. The mask is that of `positions_from`.
    """
    first = np.zeros(sequences.event_count, np.bool_)
    first[sequences.offsets[:-1]] = True
    moment = first.copy()
    moment[1:] |= sequences.timestamps_us[1:] != sequences.timestamps_us[:-1]
    number = np.cumsum(moment) - 1  # (E,) the moment of each event
    heads = np.flatnonzero(moment)
    wanted = sequences.timestamps_us >= cut_us
    if end_us is not None:
        wanted &= sequences.timestamps_us < end_us
    if target_mask is not None:
        wanted &= target_mask
    wanted &= ~first[heads][number]  # a first moment has no history
    pairs = np.unique(np.stack((number[wanted], sequences.items[wanted]), axis=1), axis=0)
    moments, counts = np.unique(pairs[:, 0], return_counts=True)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    items = pairs[:, 1].astype(np.int32)
    ends = heads[moments].astype(np.int64)
    owners = np.searchsorted(sequences.offsets, ends, side="right") - 1
    starts = sequences.offsets[owners]
    # Items ascend within a moment, so the last one is known if any is.
    return Positions(
        histories=sequences.slices(starts, ends),
        targets=items[offsets[1:] - 1],
        owners=owners.astype(np.int64),
        returning=sequences.timestamps_us[starts] < cut_us,
        baskets=Baskets(offsets, items),
    )


def cut_for_share(sequences: Sequences, share: float) -> int:
    """The time that leaves the newest `share` of events at or after it (µs since 1970, UTC)."""
    times = sequences.timestamps_us
    return kth_smallest(times, int((len(times) - 1) * (1.0 - share)))
