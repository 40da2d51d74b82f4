"""Buckets, sequence keys, hashes and ids: what identifies a user, an event and an answer.

A row of a table without an order column is identified by a hash of its values. Equal rows are
numbered, so that repeats are kept and no row counts twice when it is read again.

Legend: n rows.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import sys
import threading
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events.array_types import Int64Array, UInt64Array

USER_BUCKETS = 64
# What the id of an event without one is made of. Never to be changed, whatever fields an event is
# given: ids made of other fields would let a file that is imported again be stored twice.
CONTENT_ID_FIELDS = (
    "user_id",
    "session_id",
    "item_id",
    "event_type",
    "timestamp_us",
    "event_id",
    "value",
    "recommendation_id",
    "properties",
)
# Ids of a page stand in a name space of their own, so that nobody who holds a published key can take
# an id that the shop's server will use.
PAGE_ID_PREFIX = "from-page:"
RANDOM_BYTES = 16  # as `secrets.token_urlsafe(16)`
AT_ONCE = 256  # random ids: asking the system costs more than the bytes do
# Of the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)
SESSION_BIT = np.uint64(2)  # of a hashed sequence key
FEW_TEXTS = 16  # which are hashed one by one
TEXTS_AT_ONCE = 8_192
MANY_TEXTS = 50_000  # for which it pays to call pandas, where it is loaded
_ALL_BITS = 2**64 - 1
# SipHash's initial state under the key "0123456789123456", that of pandas.util.hash_array, by which
# sequence files were written.
_SIP_KEY = struct.unpack("<2Q", b"0123456789123456")
SIP_START = tuple(
    word ^ _SIP_KEY[place % 2]
    for place, word in enumerate(struct.unpack(">4Q", b"somepseudorandomlygeneratedbytes"))
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose events are meant: a user's, or a session's.

    With both, the user's and those of the session that no user owns yet. What was merged into a user
    is the user's too.
    """

    user_id: str | None = None
    session_id: str | None = None
    # What was merged into the user, as 'u:<user_id>' and 's:<session_id>'; None: to be looked up.
    merged: Sequence[str] | None = None

    @classmethod
    def of(cls, key: str) -> Owner:
        """The owner of a sequence: of 'u:<user_id>' or 's:<session_id>'."""
        return cls(key[2:]) if key.startswith("u:") else cls(session_id=key[2:])

    @property
    def key(self) -> str:
        """The key of the owner's sequence."""
        return sequence_key(self.user_id, self.session_id)


def user_bucket(owner_id: str) -> int:
    """The bucket, 0..63, of a user id (of the session id where there is no user).

    A CRC-32 of the UTF-8 text: the same on every machine and release, which rows on disk rely on.

    >>> user_bucket("alice"), user_bucket("élan")
    (7, 36)
    """
    return zlib.crc32(owner_id.encode()) % USER_BUCKETS


def sequence_key(user_id: str | None, session_id: str | None) -> str:
    """The key of the sequence an event belongs to: the user's if known, else the session's.

    >>> sequence_key("7", "a"), sequence_key(None, "7")
    ('u:7', 's:7')
    """
    return f"u:{user_id}" if user_id is not None else f"s:{session_id}"


def asker_key(user_id: str | None, session_id: str | None) -> str | None:
    """The key of the sequence of whoever asks; None of who gives neither id.

    >>> asker_key(None, "a"), asker_key(None, None)
    ('s:a', None)
    """
    if user_id is None and session_id is None:
        return None
    return sequence_key(user_id, session_id)


def users_and_sessions(keys: Iterable[str]) -> tuple[list[str], list[str]]:
    """User ids and session ids of the keys of sequences.

    >>> users_and_sessions(["u:7", "s:a", "u:8"])
    (['7', '8'], ['a'])
    """
    found: tuple[list[str], list[str]] = ([], [])
    for key in keys:
        found[key.startswith("s:")].append(key[2:])
    return found


def page_event_id(event_id: str) -> str:
    """The id under which an event that a page posts as `event_id` is stored.

    >>> page_event_id("e1"), as_page_knows(page_event_id("e1")), as_page_knows("e1")
    ('from-page:e1', 'e1', 'e1')
    """
    return PAGE_ID_PREFIX + event_id


def as_page_knows(event_id: str) -> str:
    """The id that the page gave to an event stored as `event_id`."""
    return event_id.removeprefix(PAGE_ID_PREFIX)


def content_hashes(events: pa.Table) -> list[str]:
    """The BLAKE2b-128 of each event's values (CONTENT_ID_FIELDS), as 32 hexadecimal digits.

    Equal events have equal hashes, from whichever file format they were read, and on every machine
    and release: rows on disk rely on it. `position` plays no part. The values are joined with a
    character that none of them may hold; a float is given by its bits, so that no way of printing
    it matters.
    """
    texts = []
    for name in CONTENT_ID_FIELDS:
        column = events[name]
        if name == "value":
            column = pc.add(column, 0.0).combine_chunks().view(pa.int64())  # -0.0 becomes 0.0
        texts.append(pc.fill_null(pc.cast(column, pa.string()), ""))
    joined = pc.binary_join_element_wise(*texts, "\x1f")
    blake2b = hashlib.blake2b
    return [
        blake2b(row, digest_size=16).hexdigest() for row in pc.cast(joined, pa.binary()).to_pylist()
    ]


def key_hashes(texts: pa.Array, prefix: str = "") -> UInt64Array:
    """Hash each text (n,), with `prefix` before it, to 64 bits (n,); null becomes 0, which no text has."""
    if texts.null_count == len(texts):
        return np.zeros(len(texts), np.uint64)
    encoded = texts.dictionary_encode()
    table = hash_texts([prefix + text for text in encoded.dictionary.to_pylist()])
    indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.append(table, np.uint64(0))[indices]


def hash_texts(texts: Sequence[str]) -> UInt64Array:
    """Hash each text by SipHash under a fixed key: the same on every machine; (n,).

    The last bit is always set, the one before it (SESSION_BIT) where the text begins as the key of a
    session does. The others are those of pandas.util.hash_array, which a process that serves need not load.

    >>> hash_texts(["u:7", "s:a"]).tolist()
    [16498074603971775433, 8132027885368087255]
    """
    sessions = np.fromiter((text.startswith("s:") for text in texts), np.bool_, len(texts))
    return (_siphashes(texts) & ~SESSION_BIT) | sessions * SESSION_BIT | np.uint64(1)


def _siphashes(texts: Sequence[str]) -> UInt64Array:
    if len(texts) >= MANY_TEXTS and sys.modules.get(
        "pandas"
    ):  # a process that serves never loads it
        import pandas as pd

        values = np.empty(len(texts), object)
        values[:] = texts
        return pd.util.hash_array(values, categorize=False).astype(np.uint64)
    encoded = [text.encode() for text in texts]
    if len(encoded) <= FEW_TEXTS:
        return np.array([_hash_of(data) for data in encoded], np.uint64)
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    found = np.empty(len(encoded), np.uint64)
    for words in np.unique(lengths // 8).tolist():  # texts of as many whole words together
        rows = np.flatnonzero(lengths // 8 == words)
        for at in range(0, len(rows), TEXTS_AT_ONCE):
            part = rows[at : at + TEXTS_AT_ONCE]
            # Filled up with zeros; no text is as long as the room for it.
            texts_of = np.array([encoded[row] for row in part], f"S{8 * words + 8}")
            table = texts_of.view("<u8").reshape(len(part), words + 1)  # (n, words + 1)
            table[:, -1] |= (lengths[part].astype(np.uint64) & np.uint64(0xFF)) << np.uint64(56)
            found[part] = _siphash([table[:, word].astype(np.uint64) for word in range(words + 1)])
    return found


def _hash_of(data: bytes) -> int:
    """`_siphashes` of one text."""
    padded = data.ljust(len(data) // 8 * 8 + 7, b"\0") + bytes([len(data) & 0xFF])
    return int(_siphash(struct.unpack(f"<{len(padded) // 8}Q", padded)))


def _siphash(words: Sequence[Any]) -> Any:
    """SipHash-2-4 (Aumasson and Bernstein 2012), then the finaliser of SplitMix64, of texts given as
    words of 64 bits, the last of which holds the length: each an int for one text, or (n,) for n.
    """
    a, b, c, d = SIP_START

    def rounds(times: int, a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any, Any, Any]:
        for _ in range(times):
            a = (a + b) & _ALL_BITS
            b = ((b << 13 | b >> 51) & _ALL_BITS) ^ a
            c = (c + d) & _ALL_BITS
            d = ((d << 16 | d >> 48) & _ALL_BITS) ^ c
            a = (a << 32 | a >> 32) & _ALL_BITS
            a = (a + d) & _ALL_BITS
            d = ((d << 21 | d >> 43) & _ALL_BITS) ^ a
            c = (c + b) & _ALL_BITS
            b = ((b << 17 | b >> 47) & _ALL_BITS) ^ c
            c = (c << 32 | c >> 32) & _ALL_BITS
        return a, b, c, d

    for word in words:
        a, b, c, d = rounds(2, a, b, c, d ^ word)
        a = a ^ word
    a, b, c, d = rounds(4, a, b, c ^ 0xFF, d)
    found = a ^ b ^ c ^ d
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        found = ((found ^ found >> shift) * multiplier) & _ALL_BITS
    return found ^ found >> 31


def mixed(*columns: UInt64Array) -> UInt64Array:
    """Mix several 64-bit hashes (n,) into one, by the finaliser of SplitMix64 (Steele et al. 2014).

    >>> one, two = np.array([1], np.uint64), np.array([2], np.uint64)
    >>> bool(mixed(one, two) == mixed(two, one))
    False
    """
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        found = (found ^ column) + _STEP
        for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
            found = (found ^ (found >> np.uint64(shift))) * np.uint64(multiplier)
        found ^= found >> np.uint64(31)
    return found


def occurrences(hashes: UInt64Array) -> Int64Array:
    """Number the rows with the same hash from 0 on; (n,).

    >>> occurrences(np.array([7, 5, 7, 7], np.uint64)).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    numbers = np.arange(len(hashes))
    first = np.ones(len(hashes), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    starts = np.maximum.accumulate(np.where(first, numbers, 0))
    found = np.empty(len(hashes), np.int64)
    found[order] = numbers - starts
    return found


def positions_of(hashes: UInt64Array, *, repeats: bool) -> Int64Array:
    """A position (n,) of each row, below 2**63; unless `repeats`, equal rows have equal positions."""
    if repeats:
        hashes = mixed(hashes, occurrences(hashes).astype(np.uint64))
    return (hashes >> np.uint64(1)).astype(np.int64)


class RandomIds:
    """Random ids that nobody can guess, from the system's randomness, fetched for many at once.

    To be made in the process that uses it: after a fork both processes would give out the same ids.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rest = b""

    def __call__(self) -> str:
        """A new id: 22 characters of letters, digits, '-' and '_'."""
        with self._lock:
            if not self._rest:
                self._rest = os.urandom(RANDOM_BYTES * AT_ONCE)
            taken, self._rest = self._rest[:RANDOM_BYTES], self._rest[RANDOM_BYTES:]
        return base64.urlsafe_b64encode(taken).rstrip(b"=").decode()
