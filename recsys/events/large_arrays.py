"""Arrays that may be larger than memory: mapped from unnamed files and filled chunk by chunk.

An unnamed file takes its space at once, so that a full disk is an error now and no crash later. It is
gone with the last array that uses it, however the process ends.

Legend: E elements.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from recsys.errors import TrainingError
from recsys.events.array_types import AnyArray, BoolArray, Int64Array, UInt64Array
from recsys.events.identity import SESSION_BIT

CHUNK = 1 << 20  # elements worked on at once
LARGE_EVENTS = 4_000_000  # of a log; beyond them its arrays are kept in files
BINS = 65_536


def allocate(count: int, dtype: type[np.generic], folder: Path | None) -> AnyArray:
    """Allocate an array (count,) without setting it: in memory, or in a file of `folder` if given.

    Raises TrainingError where the disk is full.
    """
    if folder is None or count == 0:
        return np.empty(count, dtype)
    size = count * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise TrainingError(
                f"the disk has no room for {size / 2**20:,.0f} MiB of sequences ({error.strerror})"
            ) from None
        return np.asarray(np.memmap(file, dtype, "r+", shape=(count,)))


def chunks(count: int) -> Iterator[slice]:
    """Cover `count` elements by slices of at most CHUNK."""
    for at in range(0, count, CHUNK):
        yield slice(at, min(at + CHUNK, count))


def compress(values: AnyArray, mask: BoolArray, folder: Path | None) -> AnyArray:
    """values[mask]; both (E,)."""
    if folder is None:
        return values[mask]
    found = allocate(int(np.count_nonzero(mask)), values.dtype.type, folder)
    at = 0
    for part in chunks(len(values)):
        kept = values[part][mask[part]]
        found[at : at + len(kept)] = kept
        at += len(kept)
    return found


def look_up(table: AnyArray, codes: AnyArray, folder: Path | None) -> AnyArray:
    """table[codes], codes (E,)."""
    if folder is None:
        return table[codes]
    found = allocate(len(codes), table.dtype.type, folder)
    for part in chunks(len(codes)):
        found[part] = table[codes[part]]
    return found


def count_codes(codes: AnyArray, rows: int, mask: BoolArray | None = None) -> Int64Array:
    """Count how often each code 0..rows - 1 occurs in `codes` (E,) where `mask` (E,) is True; (rows,).

    >>> count_codes(np.array([0, 2, 2]), 4).tolist()
    [1, 0, 2, 0]
    """
    counts = np.zeros(rows, np.int64)
    for part in chunks(len(codes)):
        chosen = codes[part] if mask is None else codes[part][mask[part]]
        counts += np.bincount(chosen, minlength=rows)
    return counts


def kth_smallest(values: Int64Array, k: int) -> int:
    """The k-th smallest of `values` (E,), counted from 0. Raises IndexError.

    >>> kth_smallest(np.array([5, 1, 9, 1]), 2)
    5
    """
    if not 0 <= k < len(values):
        raise IndexError(k)
    if len(values) <= CHUNK:
        return int(np.partition(values, k)[k])
    low, high = int(values.min()), int(values.max())
    while True:
        width = (high - low) // BINS + 1
        counts = np.zeros(BINS, np.int64)
        for part in chunks(len(values)):
            chosen = values[part]
            chosen = chosen[(chosen >= low) & (chosen <= high)]
            counts += np.bincount((chosen - low) // width, minlength=BINS)
        bin_ = int(np.searchsorted(np.cumsum(counts), k, side="right"))
        if width == 1:
            return low + bin_
        k -= int(counts[:bin_].sum())
        low, high = low + bin_ * width, min(high, low + (bin_ + 1) * width - 1)


class HashedKeys(Sequence[str]):
    """Sequence keys made of 64-bit hashes, for frames without user ids: '#' and the hash in hex."""

    def __init__(self, hashes: UInt64Array) -> None:
        """`hashes` (N,)."""
        self._hashes = hashes

    def __len__(self) -> int:
        return len(self._hashes)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> HashedKeys: ...
    def __getitem__(self, number: int | slice) -> str | HashedKeys:
        if isinstance(number, slice):
            return HashedKeys(self._hashes[number])
        return f"#{int(self._hashes[number]):016x}"

    def of_sessions(self) -> BoolArray:
        """(N,): which are a session's that has no user."""
        return (self._hashes & SESSION_BIT) != 0

    def select(self, numbers: Int64Array) -> HashedKeys:
        """The keys at `numbers`."""
        return HashedKeys(self._hashes[numbers])


def of_sessions(keys: Sequence[str]) -> BoolArray:
    """Which of `keys` (N,) are a session's that has no user, hashed or not."""
    if isinstance(keys, HashedKeys):
        return keys.of_sessions()
    return np.fromiter((key.startswith("s:") for key in keys), np.bool_, len(keys))


def select_keys(keys: Sequence[str], numbers: Int64Array) -> Sequence[str]:
    """The keys at `numbers`."""
    if isinstance(keys, HashedKeys):
        return keys.select(numbers)
    return [keys[number] for number in numbers]
