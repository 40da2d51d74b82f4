"""Delimited text files, such as CSV and TSV; no value's type is ever guessed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from recsys.errors import InputError, shown
from recsys.events.array_types import BoolArray, Int64Array
from recsys.events.export_files import unguarded, unguarded_column
from recsys.ingest.arrow_columns import NOT_UTF8, as_readable, text_bytes
from recsys.ingest.byte_stream import TextStream, unreadable
from recsys.ingest.dialects import (
    NONE,
    Escapes,
    TextOptions,
    dialect_of,
    header_fields,
    judged,
    sniff_delimiter,
)
from recsys.ingest.layouts import is_export_header
from recsys.ingest.raw_rows import CUT, RawChunk, RawLine, Rejection, Row, cut_line
from recsys.ingest.row_blocks import SHOWN_BYTES, BadRow, Quoting, quoting, row_blocks

# The parser knows single characters only. Ids may not hold this one, and text files do not.
_UNIT_SEPARATOR = "\x1f"

Headerless = Callable[[Sequence[str], str], Sequence[str] | None]


class DelimitedFile:
    """Delimited text with a header line, plain, .gz or .zst.

    What `options` leave open is judged by the file: the delimiter by its first line, quotes and
    escapes by its first block that holds any. `headerless`, given the fields of the first line and
    the delimiter, answers with the columns' names where that line is data.
    """

    nested = False

    def __init__(
        self,
        path: str | Path,
        rows: int,
        options: TextOptions = TextOptions(),  # noqa: B008
        headerless: Headerless | None = None,
    ) -> None:
        self.path, self._rows = Path(path), rows
        self._stream = TextStream(path, options.encoding)
        line = self._stream.take_line()
        if not line.strip():
            raise InputError("path", str(path), "the file is empty")
        if b"\r" in line:
            raise InputError("path", str(path), "lines end in carriage returns; expected newlines")
        text = line.decode(errors="backslashreplace")
        self.delimiter: str = options.delimiter or sniff_delimiter(text)
        quote = "" if options.quote == "none" else options.quote
        fields = header_fields(text, self.delimiter, quote)
        self._is_export = not options.columns and is_export_header(fields)
        if self._is_export:  # written by one rule, so that nothing is judged
            options = replace(options, quote=options.quote or '"', escape=options.escape or NONE)
        names = headerless(fields, self.delimiter) if headerless else None
        if options.columns:
            names = options.columns
            if len(names) != len(fields):
                problem = f"{len(names)} names; the first line has {len(fields)} fields"
                raise InputError("--columns", ",".join(names), problem)
        self.names = list(names) if names is not None else fields
        self._first = b"" if names is None else line + b"\n"
        sample = self._first + self._stream.peek()
        self.dialect = dialect_of(options, self.delimiter, len(self.names), _whole_lines(sample))
        self._escapes = Escapes(self.dialect) if self.dialect.escape else None
        self._quoting: Quoting | None = None
        self._separator = self.delimiter if len(self.delimiter) == 1 else _UNIT_SEPARATOR

    def chunks(self, needed: Collection[str]) -> Iterator[RawChunk]:
        """The file's rows; one with too few or too many fields is rejected."""
        read = self._escapes.reader(self._read) if self._escapes else self._read
        position = 0
        for pieces in row_blocks(read, self._rows, self._quoted):
            tables: list[pa.Table] = []
            positions: list[Int64Array] = [np.empty(0, np.int64)]
            rejections: list[Rejection] = []
            for piece in pieces:
                if isinstance(piece, BadRow):
                    whole = len(piece.head) < SHOWN_BYTES
                    rejections.append(self._rejected(position, piece.reason, piece.head, whole))
                    position += 1
                    continue
                table, invalid = self._parse(piece)
                tables.append(table)
                numbers = np.arange(table.num_rows + len(invalid), dtype=np.int64)
                positions.append(position + np.delete(numbers, list(invalid)))
                for number, (fields, line) in invalid.items():
                    reason = f"expected {len(self.names)} fields, found {fields}"
                    rejections.append(self._rejected(position + number, reason, line))
                position += len(numbers)
            table = pa.concat_tables(tables).combine_chunks() if tables else self._empty()
            yield self._chunk(table, np.concatenate(positions), rejections, needed)

    def _read(self, size: int) -> bytes:
        """The stream's bytes, the first line put back in front where it is data."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._stream.read(size)

    def _quoted(self, data: bytes) -> Quoting | None:
        """How the rows of `data` are quoted; judged by the first block that holds a quote."""
        if self.dialect.quote is None and b'"' in data:
            self.dialect = judged(self.dialect, _whole_lines(data))
        if self.dialect.quote and self._quoting is None:
            self._quoting = quoting(self.dialect)
        return self._quoting

    def _restored(self, data: bytes) -> bytes:
        return self._escapes.restored(data) if self._escapes else data

    def _text(self, cell: bytes) -> str:
        text = self._restored(cell).decode(errors="backslashreplace")
        return unguarded(text) if self._is_export else text

    def _rejected(self, position: int, reason: str, line: bytes, whole: bool = True) -> Rejection:
        """A line that is no row; `whole`: it is all there is of it."""
        text = self._restored(line).decode(errors="backslashreplace").rstrip("\r\n")
        written = self._escapes.written(line) if self._escapes else line
        raw = cut_line(text)
        if whole and _is_utf8([written]):
            raw = RawLine(
                text=written.decode().rstrip("\r\n"),
                columns=tuple(self.names),
                delimiter=self.delimiter,
                quote='"' if self.dialect.quote is None else self.dialect.quote,
                escape=self.dialect.escape,
            ).raw()
        return Rejection(position, f"{reason}: {shown(text)}", raw)

    def _parse(self, data: bytes) -> tuple[pa.Table, dict[int, tuple[int, bytes]]]:
        """`data` as columns of bytes, and the malformed rows: number -> (fields found, line)."""
        if len(self.delimiter) > 1:
            data = data.replace(self.delimiter.encode(), _UNIT_SEPARATOR.encode())
        encoding = "utf-8"
        try:
            data.decode()
        except UnicodeDecodeError:
            # A malformed row that is not UTF-8 cannot be handed to the handler of malformed rows.
            # As Latin-1 every byte is a character, and delimiters and quotes are what they were.
            encoding = "latin-1"
            data = data.decode(encoding).encode()
        table, malformed = self._parse_bytes(data)
        if encoding == "latin-1":
            columns = [_from_latin1(column) for column in table.columns]
            table = pa.table(columns, names=table.column_names)
        lines = {
            number: (found, text.encode(encoding)) for number, (found, text) in malformed.items()
        }
        if len(self.delimiter) > 1:
            stop = self.delimiter.encode()
            lines = {
                number: (found, line.replace(_UNIT_SEPARATOR.encode(), stop))
                for number, (found, line) in lines.items()
            }
        return table, lines

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
                    quote_char=self.dialect.quote or False,
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
            cells = table.column(self.names.index(name)).combine_chunks()
            if self._escapes:
                cells = self._escapes.restored_column(cells)
            columns[name], bad = as_readable(cells)
            if self._is_export:
                columns[name] = unguarded_column(columns[name])
            if bad is not None:
                unusable[name] = (bad, NOT_UTF8)

        def source_rows(numbers: Int64Array) -> list[Row]:
            picked = [column.to_pylist() for column in table.take(pa.array(numbers)).columns]
            rows: list[Row] = []
            for cells in zip(*picked, strict=True):
                row: Row = dict(zip(self.names, map(self._text, cells), strict=True))
                rows.append(row if _is_utf8(cells) else {**row, CUT: True})
            return rows

        return RawChunk(
            columns=columns,
            positions=positions,
            rejections=rejections,
            bytes_read=self._stream.bytes_consumed(),
            source_rows=source_rows,
            unusable=unusable,
            note=self.dialect.note,
        )


def _is_utf8(cells: Sequence[bytes]) -> bool:
    try:
        b",".join(cells).decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_lines(data: bytes) -> bytes:
    """`data` up to its last line end; all of it where there is none."""
    end = data.rfind(b"\n") + 1
    return data[:end] if end else data


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
