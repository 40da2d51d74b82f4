from __future__ import annotations

import uuid
from decimal import Decimal

import pyarrow as pa
import pytest

from recsys.ingest.arrow_columns import as_ids, as_numbers, as_readable
from recsys.text_rules import FORBIDDEN_CHARACTERS


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["007", "", None, " a "]), ["007", None, None, " a "]),
        (pa.array([12345.0, float("nan"), None, -0.0]), ["12345", None, None, "0"]),
        (pa.array([2**64 - 1, None], pa.uint64()), ["18446744073709551615", None]),
        (pa.array([-5, 5], pa.int8()), ["-5", "5"]),
        (pa.array([Decimal("12.00"), None]), ["12", None]),
        (pa.array([1.0, 2.0], pa.float32()), ["1", "2"]),
        (pa.array(["nan"]), ["nan"]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_ids_of_every_type(column: pa.Array, expected: list[str | None]) -> None:
    ids, bad = as_ids(column)
    assert ids.to_pylist() == expected
    assert not bad.any()
    assert ids.type == pa.string()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5]),
        pa.array([float("inf")]),
        pa.array([2.0**60]),
        pa.array([2.0**25], pa.float32()),
        pa.array([Decimal("1.50")]),
        pa.array(["x" * 257]),
        pa.array(["a\nb"]),
        pa.array(["\x7f"]),
    ],
)
def test_what_is_no_id(column: pa.Array) -> None:
    ids, bad = as_ids(column)
    assert (ids.to_pylist(), bad.tolist()) == ([None], [True])


def test_length_counts_characters_not_bytes() -> None:
    ids, bad = as_ids(pa.array(["語" * 256, "語" * 257]))
    assert bad.tolist() == [False, True]
    assert ids[0].as_py() == "語" * 256


def test_the_characters_refused_are_those_of_the_event_frame() -> None:
    characters = [chr(code) for code in range(0x250)]
    _, bad = as_ids(pa.array(characters))
    refused = [bool(FORBIDDEN_CHARACTERS.search(character)) for character in characters]
    assert bad.tolist() == refused


def test_encodings_of_text_are_undone() -> None:
    texts = ["a", None, "b"]
    for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()):
        column, bad = as_readable(pa.array(texts).cast(kind))
        assert (column.type, column.to_pylist(), bad) == (pa.string(), texts, None)
    column, _ = as_readable(pa.array(texts).dictionary_encode())
    assert column.to_pylist() == texts
    column, _ = as_readable(pa.chunked_array([texts, texts]))
    assert column.to_pylist() == texts * 2
    identity = uuid.uuid4()
    column, _ = as_readable(pa.array([identity.bytes, None], pa.uuid()))
    assert column.to_pylist() == [str(identity), None]


def test_bytes_that_are_not_utf8_are_told_apart() -> None:
    column, bad = as_readable(pa.array([b"fine", b"\xff", None, "é".encode()]))
    assert bad is not None
    assert bad.tolist() == [False, True, False, False]
    assert column.to_pylist() == ["fine", "\\xff", None, "é"]


def test_numbers_and_numeric_text() -> None:
    values, missing, bad = as_numbers(pa.array(["1", "+2.5", "", None, "1e3", "nan", "0x1F", " 1"]))
    assert values[[0, 1, 4]].tolist() == [1.0, 2.5, 1000.0]
    assert missing.tolist() == [False, False, True, True, False, False, False, False]
    assert bad.tolist() == [False, False, False, False, False, True, True, True]
    values, missing, bad = as_numbers(pa.array([2**63, None], pa.uint64()))
    assert (values[0], missing.tolist(), bad.any()) == (2.0**63, [False, True], False)
