"""Items newer than the model: what lately followed the last item of a history, as last counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys.models.bundle import Bundle
from recsys.storage.engine.database import Connection
from recsys.storage.entities import follower_rows
from recsys.storage.entities.event_rows import HistoryEvent

Followers = Mapping[str, Sequence[tuple[str, float]]]  # item id -> (next item id, share 0..1)


class Newcomers:
    """What follows items that are newer than the champion, kept until it is counted anew."""

    def __init__(self) -> None:
        self._held: tuple[int, Followers] = (0, {})  # 0: none were ever counted

    @property
    def latest(self) -> Followers:
        """What was read last, for when the database is away."""
        return self._held[1]

    def at(self, connection: Connection, stamp: int) -> Followers:
        """What was counted at `stamp`, which was read from the database before this call."""
        if self._held[0] != stamp:
            self._held = (stamp, follower_rows.all_followers(connection))
        return self._held[1]


def newcomers(
    bundle: Bundle | None, past: list[HistoryEvent], followers: Followers
) -> list[tuple[str, float, str]]:
    """(item id, score, source) of what lately followed the last item and the model cannot say."""
    if not past:
        return []
    last = past[-1].item_id
    unknown = bundle is None or last not in bundle.vocabulary
    return [
        (item_id, share, "transitions")
        for item_id, share in followers.get(last, ())
        if unknown or (bundle is not None and item_id not in bundle.vocabulary)
    ]
