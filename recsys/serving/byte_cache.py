"""A cache that is bounded by the bytes it holds, not by how many entries it has.

What a client sends may be large, so a number of entries bounds nothing.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Generic, TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
ENTRY_BYTES = 200  # of an entry, beside its key and value
PLAIN = {str, bytes, int, float, bool}  # types of values that are made of no others
MAX_SHARE = 4  # a value larger than this part of the bound is not kept


class ByteCache(Generic[K, V]):
    """Values by key, the least recently used going first. Safe to share between threads."""

    def __init__(
        self,
        max_bytes: int,
        size_of: Callable[[V], int] | None = None,
        key_size_of: Callable[[K], int] | None = None,
    ) -> None:
        """`size_of`, `key_size_of`: the bytes of a value or key, where there is a quicker way than to walk
        through it.
        """
        self.max_bytes = max_bytes
        self._size_of = size_of or bytes_of
        self._key_size_of = key_size_of or bytes_of
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What is held, in bytes; never more than `max_bytes`."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: K) -> bool:
        return key in self._held

    def get(self, key: K) -> V | None:
        """The value of `key`, or None."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those of `keys` that are held."""
        found = {}
        with self._lock:
            for key in keys:
                entry = self._held.get(key)
                if entry is not None:
                    self._held.move_to_end(key)
                    found[key] = entry[0]
        return found

    def put(self, key: K, value: V) -> None:
        """Keep `value` under `key`, unless it is large beside the bound."""
        own = sys.getsizeof(key) if type(key) in PLAIN else self._key_size_of(key)
        size = ENTRY_BYTES + own + self._size_of(value)
        with self._lock:
            before = self._held.pop(key, None)
            if before is not None:
                self._bytes -= before[1]
            if size > self.max_bytes // MAX_SHARE:
                return
            self._held[key] = (value, size)
            self._bytes += size
            while self._bytes > self.max_bytes:
                _, (_, gone) = self._held.popitem(last=False)
                self._bytes -= gone


def bytes_of(value: object) -> int:
    """About how many bytes `value` takes, what it is made of included.

    >>> bytes_of("tea") < bytes_of(["tea"]) < bytes_of({"a": ["tea"]})
    True
    """
    if value is None or type(value) in PLAIN:
        return sys.getsizeof(value)
    if isinstance(value, np.ndarray):
        return value.nbytes + 100
    size = sys.getsizeof(value, 64)
    if isinstance(value, Mapping):
        return size + sum(bytes_of(key) + bytes_of(one) for key, one in value.items())
    if is_dataclass(value):
        return size + sum(bytes_of(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return size + sum(map(bytes_of, value))
    return size
