"""Names of users' attributes, so that an expression which names none of them is refused."""

from __future__ import annotations

import threading
from collections.abc import Collection

from recsys.storage.engine.database import Connection
from recsys.storage.entities import attribute_rows

LOOK_US = 10_000_000  # between two looks for a name that was not there


class AttributeNames:
    """The names that were seen, in memory. One that is not among them is looked for, once in a while."""

    def __init__(self) -> None:
        self._seen: frozenset[str] = frozenset()
        self._looked_at_us: int | None = None
        self._lock = threading.Lock()

    def known(self, connection: Connection, wanted: Collection[str], now_us: int) -> frozenset[str]:
        """All names that are known, with those of `wanted` among them that any user has."""
        with self._lock:
            looked = self._looked_at_us
            is_due = looked is None or now_us - looked >= LOOK_US or now_us < looked
            if is_due and not self._seen.issuperset(wanted):
                self._seen = frozenset(attribute_rows.attribute_names(connection))
                self._looked_at_us = now_us
            return self._seen
