"""Elements of a JSON array, or of objects one after the other, as pieces; in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from recsys.errors import InputError
from recsys.ingest.byte_stream import BLOCK_BYTES, MAX_ROW_BYTES
from recsys.ingest.row_blocks import SHOWN_BYTES, BadRow, Piece

MAX_TEXT_BYTES = 64 * 2**20  # of one text, whose end is looked for
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\],]', re.DOTALL)


def json_elements(read: Callable[[int], bytes], rows: int, is_array: bool) -> Iterator[list[Piece]]:
    """Blocks of at most `rows` elements, each the bytes of one value on one line.

    They are the members of an array, or objects that follow one another over any number of lines.
    One of more than 1 MiB, and one that is not closed, become BadRows.
    """
    block: list[Piece] = []
    data = head = b""  # head: of an element too long to be kept
    at = start = depth = 0  # where the scan goes on, where the element begins
    while True:
        fresh = read(BLOCK_BYTES)
        data += fresh
        closed = False
        while not closed and (found := _TOKEN.search(data, at)):
            token, end = found[0], None
            if token == b'"' and fresh:  # a text that goes on in the next block
                break
            at = found.end()
            if token in (b"{", b"["):
                if is_array and depth == 0:
                    start = at
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                closed = is_array and depth == 0
                end = found.start() if closed else at if depth == 0 else None
            elif token == b"," and is_array and depth == 1:
                end = found.start()
            if end is not None:
                block += _piece(head, data[start:end])
                start, head = at, b""
                if len(block) >= rows:
                    yield block
                    block = []
        if closed or not fresh:
            rest = head + data[start:].strip()
            if rest:
                problem = "text after the array" if closed else "the last element is not closed"
                block.append(BadRow(rest[:SHOWN_BYTES], problem))
            break
        if len(data) - at > MAX_TEXT_BYTES:
            raise InputError("path", None, f"holds a text of more than {MAX_TEXT_BYTES:,} bytes")
        if at - start > MAX_ROW_BYTES:
            head, start = head or data[start:][:SHOWN_BYTES], at
        data, at, start = data[start:], at - start, 0
    if block:
        yield block


def _piece(head: bytes, element: bytes) -> list[Piece]:
    element = element.strip()
    if head or len(element) > MAX_ROW_BYTES:
        reason = f"the row is longer than {MAX_ROW_BYTES:,} bytes"
        return [BadRow((head or element)[:SHOWN_BYTES], reason)]
    return [element.replace(b"\n", b" ")] if element else []
