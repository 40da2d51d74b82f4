"""Names that nobody can guess, from the system's randomness, fetched for many of them at once."""

from __future__ import annotations

import base64
import os
import threading

BYTES = 16  # as `secrets.token_urlsafe(16)`
AT_ONCE = 256  # names: asking the system costs more than the bytes do


class RandomIds:
    """To be made in the process that uses it: after a fork both would give out the same names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rest = b""

    def __call__(self) -> str:
        """22 characters of letters, digits, '-' and '_'."""
        with self._lock:
            if not self._rest:
                self._rest = os.urandom(BYTES * AT_ONCE)
            taken, self._rest = self._rest[:BYTES], self._rest[BYTES:]
        return base64.urlsafe_b64encode(taken).rstrip(b"=").decode()
