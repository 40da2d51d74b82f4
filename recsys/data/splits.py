"""Cut by time; nothing at or after the cut leaks before it.

Every event at or after the cut is a position to be predicted from everything before it, returning
users included: keeping only users who start after the cut throws most of a user log away.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.sequences import Histories, Sequences
from recsys.data.vocabulary import FIRST_ITEM

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Positions:
    """P predictions to be made: each a history, the item that really came next, and whose it is."""

    histories: Histories  # P histories
    targets: Int32Array  # (P,) item index; UNKNOWN where training never saw the item
    owners: Int64Array  # (P,) sequence number, the unit of the bootstrap
    returning: BoolArray  # (P,) the sequence has an event before the cut

    def __len__(self) -> int:
        return len(self.targets)

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
    target_types: Collection[int] = (),
) -> Positions:
    """Every event in [cut_us, end_us) that has a predecessor in its sequence, as a position.

    `target_types`: event type codes that count as targets; empty means all.
    """
    is_target = sequences.timestamps_us >= cut_us
    if end_us is not None:
        is_target &= sequences.timestamps_us < end_us
    if target_types:
        is_target &= np.isin(sequences.event_types, list(target_types))
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


def cut_for_share(sequences: Sequences, share: float) -> int:
    """The time that leaves the newest `share` of events at or after it (µs since 1970, UTC)."""
    return int(np.quantile(sequences.timestamps_us, 1.0 - share, method="lower"))
