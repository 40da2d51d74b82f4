from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.ingest.byte_stream import MAX_ROW_BYTES
from recsys.ingest.dialects import Dialect
from recsys.ingest.row_blocks import SHOWN_BYTES, BadRow, Quoting, quoting, row_blocks

_COMMAS = quoting(Dialect(",", 2, '"', given=True))


def commas(data: bytes) -> Quoting:
    return _COMMAS


def rows_of(data: bytes, rows: int = 3, quoted: bool = True) -> list[bytes | BadRow]:
    """Whole rows and bad ones, bytes pieces split for comparison only where nothing is quoted."""
    pattern = commas if quoted else lambda data: None
    return [piece for block in row_blocks(io.BytesIO(data).read, rows, pattern) for piece in block]


def test_rows_come_in_blocks_of_the_size_asked_for() -> None:
    data = b"".join(b"%d,x\n" % number for number in range(8))
    blocks = list(row_blocks(io.BytesIO(data).read, 3))
    assert [len(block) for block in blocks] == [1, 1, 1]
    assert [block[0].count(b"\n") for block in blocks] == [3, 3, 2]  # type: ignore[union-attr]
    assert (
        b"".join(piece for block in blocks for piece in block if isinstance(piece, bytes)) == data
    )


def test_the_last_row_needs_no_line_end() -> None:
    assert rows_of(b"a\nb", rows=1) == [b"a\n", b"b"]


def test_a_quoted_line_end_does_not_end_a_row() -> None:
    data = b'1,"a\nb"\n2,"c ""d"" \n\n e"\n3,x\n'
    assert rows_of(data, rows=1) == [b'1,"a\nb"\n', b'2,"c ""d"" \n\n e"\n', b"3,x\n"]


def test_a_quote_within_a_field_opens_nothing() -> None:
    data = b'1,5" nail\n2,x\n'
    assert rows_of(data, rows=1) == [b'1,5" nail\n', b"2,x\n"]


def test_an_unclosed_quote_costs_one_line() -> None:
    bad, rest = rows_of(b'1,"a\n2,b\n3,c\n', rows=9)
    assert isinstance(bad, BadRow)
    assert (bad.head, rest) == (b'1,"a\n', b"2,b\n3,c\n")


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_giant_row_is_dropped_and_reading_resumes(quote: bytes) -> None:
    giant = quote + b"x" * (20 * MAX_ROW_BYTES) + quote
    stream = iter([b"1,a\n" + giant, b",b\n2,c\n", b""])
    pieces = [p for block in row_blocks(lambda size: next(stream), 100, commas) for p in block]
    assert [type(piece) for piece in pieces] == [bytes, BadRow, bytes]
    assert pieces[0] == b"1,a\n"
    assert pieces[2] == b"2,c\n"
    assert len(pieces[1].head) <= SHOWN_BYTES  # type: ignore[union-attr]


def test_the_limit_of_a_row_does_not_depend_on_blocks() -> None:
    for before in (0, 1, 3 * MAX_ROW_BYTES + 7, 4 * MAX_ROW_BYTES - 1):
        padding = b"p\n" * (before // 2)
        fits, exceeds = b"y" * (MAX_ROW_BYTES - 1) + b"\n", b"z" * MAX_ROW_BYTES + b"\n"
        pieces = rows_of(padding + fits + exceeds + b"end\n", rows=10**9)
        bad = [piece for piece in pieces if isinstance(piece, BadRow)]
        good = b"".join(piece for piece in pieces if isinstance(piece, bytes))
        assert len(bad) == 1
        assert bad[0].head.startswith(b"z")
        assert good == padding + fits + b"end\n"


FIELDS = st.one_of(
    st.text('ab" \n,', max_size=6).map(lambda text: '"' + text.replace('"', '""') + '"'),
    st.text("ab ", max_size=4),
    st.sampled_from(['a"b', '5"', '"a"b', '""""']),
)


@settings(deadline=None)
@given(st.lists(st.lists(FIELDS, min_size=2, max_size=3).map(",".join), max_size=12))
def test_well_formed_rows_survive_any_cut(rows: list[str]) -> None:
    expected = [f"{row}\n".encode() for row in rows]
    data = b"".join(expected)
    whole = iter([data[start : start + 5] for start in range(0, len(data), 5)])
    pattern = commas
    blocks = list(row_blocks(lambda size: next(whole, b""), 1, pattern))
    assert [piece for block in blocks for piece in block] == expected
