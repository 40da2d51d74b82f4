"""Delimited text files, such as CSV and TSV; no value's type is ever guessed."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from recsys.errors import InputError, shown
from recsys.events.array_types import BoolArray, Int64Array
from recsys.ingest.arrow_columns import NOT_UTF8, as_readable, text_bytes
from recsys.ingest.byte_stream import TextStream, unreadable
from recsys.ingest.raw_rows import RawChunk, Rejection, Row, raw_text
from recsys.ingest.row_blocks import BadRow, quoting, row_blocks

DELIMITERS = (",", "\t", ";", "|", "::")
# The parser knows single characters only. Ids may not hold this one, and text files do not.
_UNIT_SEPARATOR = "\x1f"

Headerless = Callable[[Sequence[str], str], Sequence[str] | None]


class DelimitedFile:
    """Delimited UTF-8 text with a header line, plain, .gz or .zst.

    `delimiter` is found from the first line where it is None. `headerless`, given the fields of the
    first line and the delimiter, answers with the columns' names where that line is data.
    """

    def __init__(
        self,
        path: str | Path,
        rows: int,
        delimiter: str | None = None,
        headerless: Headerless | None = None,
    ) -> None:
        self.path, self._rows = Path(path), rows
        self._stream = TextStream(path)
        line = self._stream.take_line()
        if not line.strip():
            raise InputError("path", str(path), "the file is empty")
        if b"\r" in line:
            raise InputError("path", str(path), "lines end in carriage returns; expected newlines")
        text = line.decode(errors="backslashreplace")
        self.delimiter: str = delimiter or sniff_delimiter(text)
        _check_delimiter(self.delimiter)
        fields = _fields(text, self.delimiter)
        names = headerless(fields, self.delimiter) if headerless else None
        self.names = list(names) if names is not None else fields
        self._first = b"" if names is None else line + b"\n"
        self._separator = self.delimiter if len(self.delimiter) == 1 else _UNIT_SEPARATOR

    def chunks(self, needed: Collection[str]) -> Iterator[RawChunk]:
        """The file's rows; one with too few or too many fields is rejected."""
        quoted = quoting(self.delimiter) if len(self.delimiter) == 1 else None
        position = 0
        for pieces in row_blocks(self._read, self._rows, quoted):
            tables: list[pa.Table] = []
            positions: list[Int64Array] = [np.empty(0, np.int64)]
            rejections: list[Rejection] = []
            for piece in pieces:
                if isinstance(piece, BadRow):
                    raw = raw_text(piece.head.decode(errors="backslashreplace"))
                    rejections.append(Rejection(position, f"{piece.reason}: {shown(raw)}", raw))
                    position += 1
                    continue
                table, invalid = self._parse(piece)
                tables.append(table)
                numbers = np.arange(table.num_rows + len(invalid), dtype=np.int64)
                positions.append(position + np.delete(numbers, list(invalid)))
                for number, (fields, text) in invalid.items():
                    reason = f"expected {len(self.names)} fields, found {fields}: {shown(text)}"
                    rejections.append(Rejection(position + number, reason, raw_text(text)))
                position += len(numbers)
            table = pa.concat_tables(tables).combine_chunks() if tables else self._empty()
            yield self._chunk(table, np.concatenate(positions), rejections, needed)

    def _read(self, size: int) -> bytes:
        """The stream's bytes, the first line put back in front where it is data."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._stream.read(size)

    def _parse(self, data: bytes) -> tuple[pa.Table, dict[int, tuple[int, str]]]:
        """`data` as columns of bytes, and the malformed rows: number -> (fields found, text)."""
        if len(self.delimiter) > 1:
            data = data.replace(self.delimiter.encode(), _UNIT_SEPARATOR.encode())
        try:
            data.decode()
        except UnicodeDecodeError:
            # A malformed row that is not UTF-8 cannot be handed to the handler of malformed rows.
            # As Latin-1 every byte is a character, and delimiters and quotes are what they were.
            table, invalid = self._parse_bytes(data.decode("latin-1").encode())
            table = pa.table(
                [_from_latin1(column) for column in table.columns], names=table.column_names
            )
            invalid = {
                number: (fields, text.encode("latin-1").decode(errors="backslashreplace"))
                for number, (fields, text) in invalid.items()
            }
        else:
            table, invalid = self._parse_bytes(data)
        if len(self.delimiter) > 1:
            invalid = {
                number: (fields, text.replace(_UNIT_SEPARATOR, self.delimiter))
                for number, (fields, text) in invalid.items()
            }
        return table, invalid

    def _parse_bytes(self, data: bytes) -> tuple[pa.Table, dict[int, tuple[int, str]]]:
        invalid: dict[int, tuple[int, str]] = {}

        def note(row: pa.csv.InvalidRow) -> str:
            invalid[row.number - 1] = (row.actual_columns, row.text)
            return "skip"

        keys = [str(number) for number in range(len(self.names))]  # names may repeat
        try:
            table = pa.csv.read_csv(
                pa.BufferReader(data),
                pa.csv.ReadOptions(use_threads=False, column_names=keys, block_size=len(data) + 16),
                pa.csv.ParseOptions(
                    delimiter=self._separator,
                    quote_char='"' if len(self.delimiter) == 1 else False,
                    newlines_in_values=True,
                    invalid_row_handler=note,
                ),
                pa.csv.ConvertOptions(
                    check_utf8=False,
                    column_types=dict.fromkeys(keys, pa.binary()),
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            raise unreadable(self.path, error) from None
        return table, invalid

    def _empty(self) -> pa.Table:
        keys = [str(number) for number in range(len(self.names))]
        return pa.schema([(key, pa.binary()) for key in keys]).empty_table()

    def _chunk(
        self,
        table: pa.Table,
        positions: Int64Array,
        rejections: list[Rejection],
        needed: Collection[str],
    ) -> RawChunk:
        columns: dict[str, pa.Array] = {}
        unusable: dict[str, tuple[BoolArray, str]] = {}
        for name in needed:
            columns[name], bad = as_readable(table.column(self.names.index(name)))
            if bad is not None:
                unusable[name] = (bad, NOT_UTF8)

        def source_rows(numbers: Int64Array) -> list[Row]:
            picked = [column.to_pylist() for column in table.take(pa.array(numbers)).columns]
            texts = [[cell.decode(errors="backslashreplace") for cell in cells] for cells in picked]
            return [dict(zip(self.names, cells, strict=True)) for cells in zip(*texts, strict=True)]

        return RawChunk(
            columns=columns,
            positions=positions,
            rejections=rejections,
            bytes_read=self._stream.bytes_consumed(),
            source_rows=source_rows,
            unusable=unusable,
        )


def _from_latin1(column: pa.ChunkedArray) -> pa.Array:
    """Bytes that were taken for Latin-1 and written as UTF-8, as they were before."""
    offsets, characters = text_bytes(column.combine_chunks())
    second = (characters & 0xC0) == 0x80  # of the two bytes that a byte above 127 became
    before = np.concatenate(([0], np.cumsum(second)))
    return pa.BinaryArray.from_buffers(
        pa.binary(),
        len(column),
        [
            None,
            pa.py_buffer((offsets - before[offsets]).astype(np.int32)),
            pa.py_buffer(characters.tobytes().decode().encode("latin-1")),
        ],
    )


def sniff_delimiter(line: str) -> str:
    """The delimiter that the header `line` has most often outside quotes; a comma where none.

    >>> sniff_delimiter("1::1193::5::978300760"), sniff_delimiter('"a;b",c')
    ('::', ',')
    """
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=lambda delimiter: bare.count(delimiter))


def _check_delimiter(delimiter: str) -> None:
    plain = len(delimiter) == 1 and not (delimiter.isalnum() or delimiter in '"\r\n\\ ')
    if not plain and delimiter != "::":
        raise InputError("--delimiter", delimiter, "expected one character such as , ; or tab")
    if not delimiter.isascii():
        raise InputError("--delimiter", delimiter, "expected an ASCII character")


def _fields(line: str, delimiter: str) -> list[str]:
    if len(delimiter) > 1:
        return line.split(delimiter)
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as error:
        raise InputError("path", line, f"the first line is no header: {error}") from None
