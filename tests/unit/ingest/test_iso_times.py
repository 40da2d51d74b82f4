from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.events.times import DAY_US
from recsys.ingest.event_body import rfc3339_us
from recsys.ingest.iso_times import parse_iso

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01z", 1_000_000),
        ("1970-01-01 00:00:00.000001", 1),
        ("1970-01-01 00:00:00.123456789 UTC", 123_456),
        ("1970-01-01T01:30+01:30", 0),
        ("1970-01-01T00:00:00-0130", 5_400_000_000),
        ("1970-01-01T00:00:00+00", 0),
        ("1970-01-02", DAY_US),
        ("2000-02-29", 951_782_400_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ("0001-01-01", -62_135_596_800_000_000),
    ],
)
def test_known_texts(text: str, expected: int) -> None:
    times = parse_iso(pa.array([text]))
    assert times.readable.tolist() == [True]
    assert times.us.tolist() == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2024-1-01",
        "2024-13-01",
        "2024-00-01",
        "2023-02-29",
        "1900-02-29",
        "2024-01-00",
        "2024-01-01T",
        "2024-01-01T1",
        "2024-01-01X10:00:00",
        "2024-01-01T24:00:00",
        "2024-01-01T10:60:00",
        "2024-01-01T10:00:60",
        "2024-01-01T10:00:00.",
        "2024-01-01T10:00:00.1234567890",
        "2024-01-01T10:00:00+24:00",
        "2024-01-01T10:00:00+10:60",
        "2024-01-01T10:00:00+1:00",
        "2024-01-01T10:00:00 utc",
        "2024-01-01T10:00:00ZZ",
        "2024-01-01Z",
        "2024-01-01 ",
        "٢٠٢٤-01-01",
        "2024-01-01T10:00:00Z" + "0" * 10_000,
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert parse_iso(pa.array([text])).readable.tolist() == [False]


def test_which_have_an_offset() -> None:
    texts = ["2024-01-01T10:00:00", "2024-01-01T10:00:00Z", "2024-01-01", "no", None]
    assert parse_iso(pa.array(texts)).has_offset.tolist() == [False, True, False, False, False]


def test_a_slice_is_read_like_the_whole() -> None:
    texts = pa.array(["padding of some length", "1970-01-01T00:00:05Z", "1970-01-02"])
    assert parse_iso(texts[1:]).us.tolist() == [5_000_000, DAY_US]
    assert len(parse_iso(texts[:0]).us) == 0


OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59)


@settings(deadline=None)
@given(st.datetimes(), OFFSETS, st.sampled_from(["T", " "]))
def test_what_python_writes_is_read(moment: datetime, minutes: int, separator: str) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = aware.isoformat(sep=separator)
    expected = (aware - EPOCH) // timedelta(microseconds=1)
    times = parse_iso(pa.array([text]))
    assert (times.us.tolist(), times.has_offset.tolist()) == ([expected], [True])
    assert rfc3339_us(text) == expected


@settings(deadline=None)
@given(
    st.from_regex(
        r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{0,10})?([Zz]|[+-]\d{2}:\d{2})",
        fullmatch=True,
    )
)
def test_the_column_and_the_single_reader_agree(text: str) -> None:
    times = parse_iso(pa.array([text]))
    assert (times.us.tolist()[0] if times.readable[0] else None) == rfc3339_us(text)
