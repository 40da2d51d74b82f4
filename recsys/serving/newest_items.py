"""What the catalogue says of its newest items, as a process follows it for those no version knows."""

from __future__ import annotations

from collections.abc import Callable

from recsys.models.content import Contents, read_contents
from recsys.models.text_encoder import TextEncoder
from recsys.storage.engine.database import Connection
from recsys.storage.entities import item_rows

NEWEST = 40_000  # items that are followed
ITEM_BYTES = 400  # of one of them
SHARE = (
    20.0  # what is done in turns is followed by a pause of as many times its length: 5% of a core
)


class NewestItems:
    """The newest items of the catalogue. One thread follows; others may read `contents`."""

    def __init__(self, encoder: Callable[[], TextEncoder | None] = lambda: None) -> None:
        """`encoder`: opened where a version reads what the catalogue says, and not before."""
        self._encoder = encoder
        self.contents: Contents = {}  # newest first; replaced, never changed
        self._updated: dict[str, int] = {}  # when each was updated last, in us
        self._stamp: int | None = None  # of the catalogue, as it was read
        self._next_at = float("-inf")

    @property
    def bytes(self) -> int:
        """What is held, in bytes, as estimated."""
        width = len(next(iter(self.contents.values())).vector) if self.contents else 0
        return (ITEM_BYTES + 4 * width) * len(self.contents)

    def follow(self, connection: Connection, stamp: int, clock: Callable[[], float]) -> bool:
        """Read what has changed by `stamp`, unless a pause is due; whether anything has."""
        began = clock()
        if stamp == self._stamp or began < self._next_at:
            return False
        updated = item_rows.newest_updates(connection, NEWEST)
        held, before = self.contents, self._updated
        changed = [one for one, at_us in updated.items() if before.get(one) != at_us]
        found = read_contents(item_rows.get_items(connection, changed).values(), self._encoder())
        self.contents = {
            one: found[one] if one in found else held[one]
            for one in updated
            if one in found or one in held
        }
        has_changed = self._updated != updated
        self._updated, self._stamp = updated, stamp
        self._next_at = clock() + SHARE * (clock() - began)
        return has_changed
