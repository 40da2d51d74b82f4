"""JSON Lines: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from recsys.errors import InputError, shown
from recsys.events.array_types import BoolArray, Int64Array
from recsys.ingest.byte_stream import TextStream
from recsys.ingest.json_elements import json_elements
from recsys.ingest.json_keys import repeated_key, repeats_a_key
from recsys.ingest.json_paths import ByPaths, TakesApart, lists_of, value_at
from recsys.ingest.raw_rows import RawChunk, Rejection, Row, plain, raw_text
from recsys.ingest.row_blocks import BadRow, Piece, row_blocks

MEMBERS = 20_000  # rows made of lists that are kept at a time, and those of one object
_UNUSABLE = "expected text or a whole number"
_TYPES: dict[frozenset[type], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset({str}): pa.string(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
}


class JsonLines:
    """JSON Lines, a JSON array, or objects written over several lines; plain, .gz or .zst.

    `names` are the keys found in the first block.
    """

    nested = True

    def __init__(
        self,
        path: str | Path,
        rows: int,
        encoding: str | None = None,
        take: TakesApart | None = None,
    ) -> None:
        self._take = take
        self._stream = TextStream(path, encoding)
        start = self._stream.peek().lstrip()
        if not start:
            raise InputError("path", str(path), "the file is empty")
        is_array = start.startswith(b"[")
        if is_array or start.partition(b"\n")[0].strip() == b"{":
            self._pieces = json_elements(self._stream.read, rows, is_array)
        else:
            self._pieces = row_blocks(self._stream.read, rows)
        self._blocks = self._objects()
        self._head = next(self._blocks, ([], np.empty(0, np.int64), []))
        self.names = list(dict.fromkeys(key for row in self._head[0] for key in row))
        if not self.names and not start.startswith((b"{", b"[")):
            raise InputError("path", str(path), "is not JSON Lines; expected one object a line")

    def chunks(self, needed: Collection[str]) -> Iterator[RawChunk]:
        """The file's rows; a line that is no object is rejected.

        Where `needed` names a list's members, each of them is a row; so is each that `take` makes.
        """
        take: TakesApart | None = self._take
        if take is None and (lists := lists_of([n for n in needed if n not in self.names])):
            take = ByPaths(list(needed), lists)
        position = 0
        for objects, places, rejections in chain([self._head], self._blocks):
            bytes_read = self._stream.bytes_consumed()
            if take is None:
                yield chunk_of(objects, places, rejections, needed, bytes_read)
                continue
            for chunk in members(objects, needed, take, position, places, rejections):
                position += chunk.rows
                yield replace(chunk, bytes_read=bytes_read)
                bytes_read = 0

    def _objects(self) -> Iterator[tuple[list[Row], Int64Array, list[Rejection]]]:
        position = 0
        for pieces in self._pieces:
            block = parse_lines(_lines(pieces), position)
            position += len(block[0]) + len(block[2])
            yield block


def members(
    objects: list[Row],
    needed: Collection[str],
    take: TakesApart,
    position: int,
    places: Int64Array | None = None,
    rejections: Sequence[Rejection] = (),
) -> Iterator[RawChunk]:
    """The rows that `take` makes of `objects`, numbered from `position` on, some MEMBERS at a time.

    `rejections` lie between the objects at `places`. An object without a row is left out.
    """
    rows: list[Row] = []
    numbers: list[int] = []
    refused: list[Rejection] = []
    left_out = 0
    waiting = list(rejections)[::-1]
    for number, row in enumerate(objects):
        while places is not None and waiting and waiting[-1].position < places[number]:
            refused.append(replace(waiting.pop(), position=position))
            position += 1
        try:
            found = take.rows(row)
        except InputError as error:
            refused.append(Rejection(position, str(error), raw_text(row, take.first)))
            position += 1
            continue
        left_out += not found
        numbers += range(position, position + len(found))
        rows += found
        position += len(found) or 1
        if len(rows) >= MEMBERS:
            chunk = chunk_of(rows, np.array(numbers, np.int64), refused, needed, 0)
            yield replace(chunk, left_out=left_out)
            rows, numbers, refused, left_out = [], [], [], 0
    refused += [replace(one, position=position + n) for n, one in enumerate(waiting[::-1])]
    chunk = chunk_of(rows, np.array(numbers, np.int64), refused, needed, 0)
    yield replace(chunk, left_out=left_out)


def _lines(pieces: Iterable[Piece]) -> list[bytes | BadRow]:
    lines: list[bytes | BadRow] = []
    for piece in pieces:
        if isinstance(piece, BadRow):
            lines.append(piece)
        else:
            lines += filter(None, piece.split(b"\n"))
    return lines


def _all_objects(lines: Sequence[bytes | BadRow]) -> list[Row]:
    """The objects of `lines` where every one holds one without a repeated key, as is usual; else nothing."""
    try:
        objects = [orjson.loads(line) for line in lines]  # type: ignore[arg-type]
    except orjson.JSONDecodeError:  # of a BadRow as well
        return []
    if set(map(type, objects)) != {dict} or repeats_a_key(b"\n".join(lines), objects):  # type: ignore[arg-type]
        return []
    return objects


def parse_lines(
    lines: Sequence[bytes | BadRow], position: int
) -> tuple[list[Row], Int64Array, list[Rejection]]:
    """The objects that `lines` hold, their positions, and the lines that hold none; blanks aside.

    `position` is that of the first line.
    """
    objects: list[Row] = _all_objects(lines)
    rejections: list[Rejection] = []
    for line in () if objects else lines:
        number = position + len(objects) + len(rejections)
        if isinstance(line, BadRow):
            raw = raw_text(line.head.decode(errors="backslashreplace"))
            rejections.append(Rejection(number, f"{line.reason}: {shown(raw)}", raw))
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if not line.strip():
                continue
            text = line.decode(errors="backslashreplace")
            reason = f"not JSON: {str(error)[:100]}: {shown(text)}"
            rejections.append(Rejection(number, reason, raw_text(text)))
            continue
        if isinstance(value, dict) and not repeats_a_key(line, [value]):
            objects.append(value)
            continue
        text = line.decode()
        problem = repeated_key(line) if isinstance(value, dict) else "expected a JSON object"
        rejections.append(Rejection(number, f"{problem}: {shown(text)}", raw_text(text)))
    rejected = [rejection.position - position for rejection in rejections]
    numbers = np.arange(len(objects) + len(rejections), dtype=np.int64)
    return objects, position + np.delete(numbers, rejected), rejections


def chunk_of(
    objects: list[Row],
    positions: Int64Array,
    rejections: list[Rejection],
    needed: Collection[str],
    bytes_read: int,
) -> RawChunk:
    """The columns `needed` of `objects`; an absent key is null."""
    columns: dict[str, pa.Array] = {}
    unusable: dict[str, tuple[BoolArray, str]] = {}
    for name in needed:
        columns[name], bad = json_column([_value(row, name) for row in objects])
        if bad is not None:
            unusable[name] = (bad, _UNUSABLE)
    return RawChunk(
        columns=columns,
        positions=positions,
        rejections=rejections,
        bytes_read=bytes_read,
        source_rows=lambda numbers: [objects[number] for number in numbers],
        unusable=unusable,
    )


def _value(row: Row, name: str) -> object:
    value = row.get(name)
    return value_at(row, name) if value is None and "." in name and name not in row else value


def json_column(values: list[object]) -> tuple[pa.Array, BoolArray | None]:
    """JSON `values` (n,) as one Arrow array, and which of them no id can be made of (None: none).

    A column of several kinds becomes text, its numbers as JSON writes them.

    >>> json_column([7, "a", None])[0].to_pylist()
    ['7', 'a', None]
    """
    kinds = frozenset(map(type, values)) - {type(None)}
    if kinds in _TYPES:
        try:
            return pa.array(values, _TYPES[kinds]), None
        except (OverflowError, pa.ArrowInvalid):  # an integer beyond 64 bits, or beyond a double
            pass
    texts: list[str | None] = []
    bad = np.zeros(len(values), np.bool_)
    for number, value in enumerate(values):
        if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
            value = int(value)
        if value is None or isinstance(value, str):
            texts.append(value)
        else:
            texts.append(json.dumps(value, default=plain))
            bad[number] = type(value) is not int
    return pa.array(texts, pa.string()), bad if bad.any() else None
