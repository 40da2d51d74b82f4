"""Passwords as salted scrypt hashes (RFC 7914).

A hash reads `scrypt$<log2 n>$<r>$<p>$<salt>$<key>`, so the costs can be raised later: old hashes are
checked with the costs they were made with.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from recsys.errors import InputError, RateLimitError

LOG_N, R, P = 15, 8, 3  # 32 MiB and about a quarter of a second
MIN_LENGTH, MAX_LENGTH = 10, 200

PLACES = (
    2  # of threads of a process that answer requests: one's password is hashed, another's waits
)
NICE = 5  # of a hash: about a third of a thread that answers; at 10 a loaded machine takes a minute
BUSY_SECONDS = 2  # after which somebody without a place may come again

_places = threading.BoundedSemaphore(PLACES)
_one_at_a_time = threading.Lock()  # a hash takes 32 MiB, and a core


@contextmanager
def place_to_hash() -> Iterator[None]:
    """One of the few places of requests that wait for a password's hash.

    Raises RateLimitError where all are taken: the threads that are left answer other requests.
    """
    if not _places.acquire(blocking=False):
        raise RateLimitError(BUSY_SECONDS)
    try:
        yield
    finally:
        _places.release()


def hash_password(password: str) -> str:
    """Raises InputError for a password too short or too long; it is never in the message."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise InputError("password", "…", f"expected {MIN_LENGTH} to {MAX_LENGTH} characters")
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, LOG_N, R, P)
    return "$".join(("scrypt", str(LOG_N), str(R), str(P), _text(salt), _text(key)))


def is_password(password: str, stored: str | None) -> bool:
    """Whether `password` is the one hashed in `stored`; as slow where there is none (None)."""
    name, log_n, r, p, salt, key = (stored or NOBODY).split("$")
    assert name == "scrypt"
    found = _scrypt(password[:MAX_LENGTH], base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(key)) and stored is not None


def new_password() -> str:
    """A random password of 120 bits."""
    return secrets.token_urlsafe(15)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    found: list[bytes] = []

    def work() -> None:
        # Whoever tries passwords takes what time is left: a thread's priority is its own in Linux.
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        key = hashlib.scrypt(
            password.encode("utf-8", "surrogatepass"),
            salt=salt,
            n=2**log_n,
            r=r,
            p=p,
            maxmem=2 ** (log_n + 8) * r,
            dklen=32,
        )
        found.append(key)

    with _one_at_a_time:
        thread = threading.Thread(target=work, name="password", daemon=True)
        thread.start()
        thread.join()
    return found[0]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


# Checked in place of an account that is not there, so that the time taken tells nothing.
NOBODY = "$".join(("scrypt", str(LOG_N), str(R), str(P), _text(bytes(16)), _text(bytes(32))))
