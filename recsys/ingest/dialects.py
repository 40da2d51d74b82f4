"""Dialect of a delimited text file: its delimiter, quotes and escapes, as given or by evidence."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from recsys.errors import InputError
from recsys.ingest.cells import BLANKS

DELIMITERS = (",", "\t", ";", "|", "\x01", "::")  # \x01: Hive's own
NONE = "none"  # of --quote and --escape
_BACKSLASH = "\\"
# What a letter after a backslash stands for in dumps of MySQL, Hive and PostgreSQL; \N is a word
# for a missing value and stays.
_LETTERS = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"0": b"\0", b"b": b"\b", b"Z": b"\x1a"}
_DUMPED = re.compile(rb"\\(.?)", re.DOTALL)
# What stands for an escaped character while the text is cut into rows and fields: control
# characters, which ids may not hold, so that one of the file's own is as good as another.
_STAND_INS = bytes(range(0x0E, 0x1A))
_OWN = bytes.maketrans(_STAND_INS, b"\x7f" * len(_STAND_INS))


@dataclass(frozen=True)
class TextOptions:
    """How a text file is written; None: judged by the file."""

    delimiter: str | None = None
    columns: tuple[str, ...] = ()  # of a file without a header line
    quote: str | None = None  # a character, or 'none'
    escape: str | None = None  # a character, or 'none'
    encoding: str | None = None  # UTF-8, or what a byte order mark says

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            _check_delimiter(self.delimiter)
        for option, character in (("--quote", self.quote), ("--escape", self.escape)):
            if character is None or character == NONE:
                continue
            fine = len(character) == 1 and character.isascii() and character.isprintable()
            if not fine or character.isalnum() or character in (" ", self.delimiter):
                raise InputError(option, character, "expected one character such as \" or 'none'")
        if self.escape is not None and self.quote == self.escape != NONE:
            raise InputError(
                "--escape", self.escape, "is the quote too; a doubled quote needs none"
            )
        if len(set(self.columns)) < len(self.columns) or not all(self.columns):
            raise InputError("--columns", ",".join(self.columns), "expected names, each once")


@dataclass(frozen=True)
class Dialect:
    """How lines are cut into fields."""

    delimiter: str
    fields: int  # of a row
    quote: str | None = None  # '' where quotes mean nothing; None: no line so far has one
    escape: str = ""
    given: bool = False  # the quote was named, not judged
    note: str = ""  # how it was judged, where that is worth telling

    @property
    def letters(self) -> bool:
        """Whether a letter after the escape stands for a control character, as in dumps."""
        return self.escape == _BACKSLASH and not self.quote and self.delimiter in "\t\x01"


def dialect_of(options: TextOptions, delimiter: str, fields: int, sample: bytes) -> Dialect:
    """The dialect of a file whose data begin with `sample`, whole lines."""
    found = Dialect(delimiter, fields)
    if len(delimiter) > 1 or options.quote == NONE:
        found = replace(found, quote="", given=options.quote == NONE)
    elif options.quote is not None:
        found = replace(found, quote=options.quote, given=True)
    if options.escape is not None:
        found = replace(found, escape="" if options.escape == NONE else options.escape)
    elif _is_dump(sample, delimiter):
        note = "read with \\ as the escape, as in a dump"
        found = replace(found, escape=_BACKSLASH, note=note)
    judge_escape = options.escape is None and not found.escape
    if found.escape:  # what is escaped is no evidence
        pair = re.escape(found.escape.encode()) + b"."
        sample = re.sub(pair, b"__", sample, flags=re.DOTALL)
    return judged(found, sample, judge_escape) if found.quote is None else found


def judged(dialect: Dialect, sample: bytes, judge_escape: bool = False) -> Dialect:
    r"""`dialect` with the quote that the lines of `sample` are evidence for.

    Quotes count as such, unless they open fields and do not close them in lines that are complete
    rows as they stand, and no line needs them: then the file is written without quoting. Where a
    backslash before a quote explains what would be open, it is an escape, as Spark writes it.

    >>> judged(Dialect("\t", 2), b'u1\t"abc\nu2\t"def\n').quote
    ''
    """
    if b'"' not in sample:
        return dialect
    stop = dialect.delimiter.encode()
    if _consistent(dialect, sample):
        return replace(dialect, quote='"')
    strict, spark = row_pattern(dialect.delimiter, '"'), _spark_pattern(stop)
    opened = needed = closed = everywhere = broken = escaped = 0
    for line in sample.split(b"\n"):
        if b'"' not in line:
            continue
        complete = line.count(stop) + 1 == dialect.fields
        if strict.fullmatch(line):
            closed += 1
            needed += not complete
            everywhere += line.count(b'"' + stop + b'"') >= min(2, dialect.fields - 1)
        elif judge_escape and b'\\"' in line and spark.fullmatch(line):
            escaped += 1
        elif complete:
            opened += b'"' in (field[:1] for field in line.split(stop))
        else:
            broken += 1
    if escaped > opened:
        return replace(
            dialect, quote='"', escape=_BACKSLASH, note="read with \\ as the escape in quotes"
        )
    tabs = dialect.delimiter == "\t"
    plain = opened > 0 and not needed and broken <= (opened if tabs else 0)
    if plain and everywhere <= opened and (tabs or closed <= opened):
        return replace(
            dialect, quote="", note="read without quoting: quotes are opened and not closed"
        )
    return replace(dialect, quote='"')


def _consistent(dialect: Dialect, sample: bytes) -> bool:
    """Whether all of `sample` can be taken for quoted rows, none of which swallows another."""
    stop, at = dialect.delimiter.encode(), 0
    pattern, plain = row_pattern(dialect.delimiter, '"'), _plain_rows(stop, dialect.fields)
    while at < len(sample):
        if rows := plain.match(sample, at):
            at = rows.end()
            continue
        found = pattern.match(sample, at)
        row = found[0] if found else b""
        if not row or not (row.endswith(b"\n") or at + len(row) == len(sample)):
            # A long sample may be cut within a field of several lines.
            return len(sample) >= 2**20 and len(sample) - at < 2**16
        if b'"' in row:
            bare = re.sub(rb'"(?:[^"]++|"")*+"', b"", row)
            lines = row.count(b"\n", 0, -1)
            if bare.count(stop) + 1 != dialect.fields or (
                lines and swallows(row, stop, b'"', dialect.fields)
            ):
                return False
        at += len(row)
    return True


def swallows(row: bytes, stop: bytes, quote: bytes, fields: int) -> bool:
    """Whether each line of `row` is a complete row as it stands; not where every field is quoted."""
    if row.count(quote + stop + quote) >= fields - 1 and row.startswith(quote):
        return False
    lines = row.removesuffix(b"\n").split(b"\n")
    return all(line.count(stop) + 1 == fields for line in lines)


def row_pattern(delimiter: str, quote: str) -> re.Pattern[bytes]:
    """One row whose quoted fields are closed where they end; it may span lines."""
    stop, mark = re.escape(delimiter.encode()), re.escape(quote.encode())
    field = rb"(?:Q(?:[^Q]++|QQ)*+Q|(?!Q)[^D\n]*+)".replace(b"Q", mark).replace(b"D", stop)
    return re.compile(rb"%s(?:%s%s)*+\r?\n?" % (field, stop, field))


def _plain_rows(stop: bytes, fields: int) -> re.Pattern[bytes]:
    """Rows of one line and of so many fields, whose quotes are one before and one after a field."""
    field = rb'(?:"[^"\n]*+"|[^"D\n]*+)'.replace(b"D", re.escape(stop))
    return re.compile(rb"(?:%s(?:%s%s){%d}\r?\n)++" % (field, re.escape(stop), field, fields - 1))


def _spark_pattern(stop: bytes) -> re.Pattern[bytes]:
    stop = re.escape(stop)
    field = rb'(?:"(?:[^"\\]++|\\.|"")*+"|(?!")[^D\n]*+)'.replace(b"D", stop)
    return re.compile(rb"%s(?:%s%s)*+\r?" % (field, stop, field))


def _is_dump(sample: bytes, delimiter: str) -> bool:
    r"""Whether backslashes are escapes: there are \N cells, escaped delimiters, line ends or
    backslashes, and none that could not be one.
    """
    if b"\\" not in sample:
        return False
    stop = delimiter.encode()
    found = set(_DUMPED.findall(sample))
    if not found <= {stop, b"\n", b"\r", b"\\", b"N", b'"', b"'", b"", *_LETTERS}:
        return False
    cell = rb"(?:^|%s)\\N(?:%s|\r?$)" % (re.escape(stop), re.escape(stop))
    return bool(found & {stop, b"\n", b"\\"}) or re.search(cell, sample, re.MULTILINE) is not None


class Escapes:
    """Escaped characters of a stream of text, replaced by stand-ins and back."""

    def __init__(self, dialect: Dialect) -> None:
        escape, stop = dialect.escape.encode(), dialect.delimiter.encode()
        quote = dialect.quote if dialect.quote is not None else '"'
        meant = {
            one: one for one in (escape, stop, b"\n", b"\r", quote.encode(), b'"', b"'") if one
        }
        if dialect.letters:
            meant |= _LETTERS
        values = sorted(set(meant.values()))
        stand_ins = {
            value: bytes([stand_in]) for value, stand_in in zip(values, _STAND_INS, strict=False)
        }
        self._after = {character: stand_ins[value] for character, value in meant.items()}
        self._pattern = re.compile(re.escape(escape) + b"(.)", re.DOTALL)
        self._escape, self._pending = escape, b""
        self._stands_for = dict(zip(stand_ins.values(), stand_ins, strict=True))
        self._back = bytes.maketrans(b"".join(stand_ins.values()), b"".join(stand_ins))

    def reader(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """`read`, with stand-ins for what is escaped."""

        def replaced(size: int) -> bytes:
            fresh = read(size)
            data, self._pending = self._pending + fresh.translate(_OWN), b""
            if fresh and (len(data) - len(data.rstrip(self._escape))) % 2:
                data, self._pending = data[:-1], self._escape
            if not data and fresh:
                return replaced(size)
            if self._escape not in data:
                return data
            return self._pattern.sub(lambda found: self._after.get(found[1], found[0]), data)

        return replaced

    def restored(self, data: bytes) -> bytes:
        """`data` with the characters that stand-ins stand for."""
        return data.translate(self._back)

    def written(self, data: bytes) -> bytes:
        """`data` with its escapes, so that it can be read once more."""
        for stand_in, value in self._stands_for.items():
            data = data.replace(stand_in, self._escape + value)
        return data

    def restored_column(self, column: pa.Array) -> pa.Array:
        """The same of a column of bytes."""
        _, offsets, data = column.buffers()
        if data is None:
            return column
        buffers = [None, offsets, pa.py_buffer(data.to_pybytes().translate(self._back))]
        return pa.BinaryArray.from_buffers(pa.binary(), len(column), buffers, offset=column.offset)


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


def header_fields(line: str, delimiter: str, quote: str | None) -> list[str]:
    """The fields of a header `line`, trimmed; quotes count where they are closed."""
    quote = '"' if quote is None else quote
    plain = len(delimiter) > 1 or not quote
    if plain or not row_pattern(delimiter, quote).fullmatch(line.encode()):
        return [field.strip(BLANKS) for field in line.split(delimiter)]
    fields = next(csv.reader([line], delimiter=delimiter, quotechar=quote))
    return [field.strip(BLANKS) for field in fields]


def line_fields(line: str, dialect: Dialect) -> list[str] | None:
    """The fields of a `line` that is one row; None where a quote is opened and not closed.

    >>> line_fields('a,"b,c"', Dialect(",", 2, quote='"')), line_fields('a,"b', Dialect(",", 2))
    (['a', 'b,c'], ['a', '"b'])
    """
    escapes = Escapes(dialect) if dialect.escape else None
    if escapes:
        pieces = iter((line.encode(), b""))
        read = escapes.reader(lambda size: next(pieces))
        line = (read(0) + read(0)).decode()
    if not dialect.quote or len(dialect.delimiter) > 1:
        fields = line.split(dialect.delimiter)
    elif row_pattern(dialect.delimiter, dialect.quote).fullmatch(line.encode()):
        row = csv.reader([line], delimiter=dialect.delimiter, quotechar=dialect.quote)
        fields = next(row, [""])
    else:
        return None
    return [escapes.restored(one.encode()).decode() for one in fields] if escapes else fields
