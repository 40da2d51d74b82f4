"""Passwords as salted scrypt hashes (RFC 7914).

A hash reads `scrypt$<log2 n>$<r>$<p>$<salt>$<key>`, so the costs can be raised later: old hashes are
checked with the costs they were made with.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading

from recsys.errors import InputError

LOG_N, R, P = 15, 8, 3  # 32 MiB and about a quarter of a second
MIN_LENGTH, MAX_LENGTH = 10, 200

# A crowd at the door may take no more memory than this many hashes need.
_at_once = threading.BoundedSemaphore(2)


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
    with _at_once:
        return hashlib.scrypt(
            password.encode("utf-8", "surrogatepass"),
            salt=salt,
            n=2**log_n,
            r=r,
            p=p,
            maxmem=2 ** (log_n + 8) * r,
            dklen=32,
        )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


# Checked in place of an account that is not there, so that the time taken tells nothing.
NOBODY = "$".join(("scrypt", str(LOG_N), str(R), str(P), _text(bytes(16)), _text(bytes(32))))
