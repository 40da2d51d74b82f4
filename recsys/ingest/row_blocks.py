"""A stream of bytes -> blocks of whole rows, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from recsys.events.array_types import BoolArray, Int64Array, UInt8Array
from recsys.ingest.byte_stream import BLOCK_BYTES, MAX_ROW_BYTES
from recsys.ingest.dialects import Dialect, swallows

SHOWN_BYTES = 4_096  # kept of a row that cannot be taken apart
SWALLOWED = "a quoted field goes on over the end of a complete row; is the file quoted? (--quote)"
_LINE_END = np.array([10], np.uint8)


class BadRow(NamedTuple):
    """A row whose end could not be found, or that is longer than allowed."""

    head: bytes
    reason: str


Piece = bytes | BadRow  # bytes: whole rows


class Quoting(NamedTuple):
    """How rows of delimited text are separated where quoted fields may hold line ends."""

    delimiter: int  # its byte
    quote: int
    row: re.Pattern[bytes]  # one row
    strict: re.Pattern[bytes]  # one whose fields of several lines end where they are closed
    fields: int  # of a row
    given: bool  # not judged by the file


def quoting(dialect: Dialect) -> Quoting:
    """As in the parser the rows are handed to, a quote opens a field only at its very start."""
    assert dialect.quote
    stop, quote = re.escape(dialect.delimiter.encode()), re.escape(dialect.quote.encode())
    field = rb"(?:Q(?:[^Q]++|QQ)*+Q|(?!Q))[^D\n]*+".replace(b"Q", quote).replace(b"D", stop)
    strict = rb"(?:Q(?:[^Q\n]++|QQ)*+Q[^D\n]*+|Q(?:[^Q]++|QQ)*+Q\r?|(?!Q)[^D\n]*+)"
    strict = strict.replace(b"Q", quote).replace(b"D", stop)
    return Quoting(
        delimiter=ord(dialect.delimiter),
        quote=ord(dialect.quote),
        row=re.compile(rb"%s(?:%s%s)*+(?:\n|\Z)" % (field, stop, field)),
        strict=re.compile(rb"%s(?:%s%s)*+\n?" % (strict, stop, strict)),
        fields=dialect.fields,
        given=dialect.given,
    )


# The quoting of a block, by its bytes; None where a line end always ends a row.
Quoted = Callable[[bytes], Quoting | None]


def row_blocks(
    read: Callable[[int], bytes], rows: int, quoted: Quoted = lambda data: None
) -> Iterator[list[Piece]]:
    """Blocks of at most `rows` whole rows and some 8 MiB, in order.

    A row longer than 1 MiB, and a line whose opening quote finds no closing one within that, become
    BadRows; reading resumes at the next line. So does every line of a row that a quoted field makes of
    several, where each is a complete row by itself or the field does not end where it is closed.
    """
    pending = b""
    skipping = final = False
    while not final:
        data = read(BLOCK_BYTES)
        final = not data
        if skipping:
            cut = data.find(b"\n")
            if cut < 0:
                continue
            data, skipping = data[cut + 1 :], False
        data = pending + data
        ends, bad = _row_ends(data, quoted(data), final)
        complete = int(ends[-1]) if len(ends) else 0
        skipping = len(data) - complete > MAX_ROW_BYTES
        emit_all = final or skipping or len(data) >= 2 * BLOCK_BYTES
        count = len(ends) if emit_all else len(ends) - len(ends) % rows
        for first in range(0, count, rows):
            last = min(first + rows, count)
            pieces = _pieces(data, ends, first, last, bad)
            if skipping and last == count:
                pieces.append(_too_long(data[complete:]))
            yield pieces
        if skipping and count == 0:
            yield [_too_long(data)]
        pending = b"" if skipping else data[int(ends[count - 1]) if count else 0 :]


def _row_ends(
    data: bytes, quoted: Quoting | None, final: bool
) -> tuple[Int64Array, dict[int, str]]:
    """Where each whole row of `data` ends, and why some of them are bad (row number -> reason)."""
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == 10) + 1
    if final and len(data) and (not len(ends) or ends[-1] < len(data)):
        ends = np.append(ends, len(data))
    bad: dict[int, str] = {}
    if quoted is not None and bytes([quoted.quote]) in data:
        ends, bad = _join_quoted(data, ends, characters, quoted, final)
    lengths = np.diff(ends, prepend=0)
    for row in np.flatnonzero(lengths > MAX_ROW_BYTES).tolist():
        bad[row] = _too_long(b"").reason
    return ends, bad


def _join_quoted(
    data: bytes, ends: Int64Array, characters: UInt8Array, quoted: Quoting, final: bool
) -> tuple[Int64Array, dict[int, str]]:
    """`ends` without those within quotes, and the rows whose quotes cannot be meant, with why."""
    kept = np.ones(len(ends), np.bool_)
    bad: dict[int, str] = {}
    resume = 0
    for line in _intricate(characters, ends, quoted):
        start = int(ends[line - 1]) if line else 0
        if start < resume:
            continue
        match = quoted.row.match(data, start)
        end = match.end() if match else start
        if end > start + MAX_ROW_BYTES or not (final or data[end - 1 : end] == b"\n"):
            match = None
        if match is not None:
            last = int(np.searchsorted(ends, end))
            if last > line and _is_suspect(data[start:end], quoted):
                bad |= dict.fromkeys(range(line, last + 1), SWALLOWED)
            else:
                kept[line:last] = False
            resume = end
        elif final or len(data) - start > MAX_ROW_BYTES:
            bad[line] = "a quote is opened and not closed"
            resume = int(ends[line])
        else:
            kept[line:] = False
            break
    numbers = np.searchsorted(np.flatnonzero(kept), list(bad))
    return ends[kept], dict(zip(numbers.tolist(), bad.values(), strict=True))


def _is_suspect(row: bytes, quoted: Quoting) -> bool:
    """Whether a quoted field of `row` swallows rows rather than hold text of several lines."""
    if quoted.strict.fullmatch(row) is None:
        return True
    stop, quote = bytes([quoted.delimiter]), bytes([quoted.quote])
    return not quoted.given and swallows(row, stop, quote, quoted.fields)


def _intricate(characters: UInt8Array, ends: Int64Array, quoted: Quoting) -> list[int]:
    """The lines whose quotes are not simply one before and one after each of some fields.

    Only those need a closer look: any other line that begins a row also ends it.
    """
    delimiter = quoted.delimiter
    quotes = np.flatnonzero(characters == quoted.quote)
    before_end = np.searchsorted(quotes, ends)
    quotes = quotes[: before_end[-1] if len(ends) else 0]
    counts = np.diff(before_end, prepend=0)
    odd = np.flatnonzero(counts & 1)
    padded = np.concatenate((_LINE_END, characters, _LINE_END))
    opens = _one_of(padded[quotes], (delimiter, 10))
    closes = _one_of(padded[quotes + 2], (delimiter, 10, 13))
    # Without odd lines a quote's place among all is as even as its place in its line.
    if not len(odd) and opens[::2].all() and closes[1::2].all():
        return []
    place = np.arange(len(quotes)) - np.repeat(before_end - counts, counts)
    simple = np.where(place & 1 == 0, opens, closes)
    lines = np.searchsorted(ends, quotes[~simple], side="right")
    found: list[int] = np.union1d(odd, lines).tolist()
    return found


def _one_of(characters: UInt8Array, allowed: tuple[int, ...]) -> BoolArray:
    found: BoolArray = characters == allowed[0]
    for other in allowed[1:]:
        found |= characters == other
    return found


def _pieces(
    data: bytes, ends: Int64Array, first: int, last: int, bad: dict[int, str]
) -> list[Piece]:
    """Rows first..last of `data`, the bad ones apart."""

    def start_of(row: int) -> int:
        return int(ends[row - 1]) if row else 0

    pieces: list[Piece] = []
    start = start_of(first)
    for row in sorted(row for row in bad if first <= row < last):
        if start_of(row) > start:
            pieces.append(data[start : start_of(row)])
        start = int(ends[row])
        pieces.append(BadRow(data[start_of(row) : start][:SHOWN_BYTES], bad[row]))
    if ends[last - 1] > start:
        pieces.append(data[start : int(ends[last - 1])])
    return pieces


def _too_long(row: bytes) -> BadRow:
    return BadRow(row[:SHOWN_BYTES], f"the row is longer than {MAX_ROW_BYTES:,} bytes")
