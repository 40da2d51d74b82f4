from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from recsys.errors import InputError
from recsys.events.times import DAY_US
from recsys.ingest.timestamps import TimestampParser

NOW_US = 1_700_000_000_000_000
T = 1_592_955_233


def parser(
    unit: str | None = None, timezone: str | None = None, replay: bool = False
) -> TimestampParser:
    return TimestampParser("ts", unit, timezone, NOW_US, replay)


def read(
    column: pa.Array, unit: str | None = None, timezone: str | None = None
) -> list[int | None]:
    times = parser(unit, timezone, replay=True).parse(column)
    return [
        us if outcome == 0 else None
        for us, outcome in zip(times.us.tolist(), times.outcome.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("column", "unit", "expected"),
    [
        (pa.array([T, None]), "s", [T * 10**6, None]),
        (pa.array([T * 1000 + 1]), "ms", [T * 10**6 + 1000]),
        (pa.array([T * 10**9 + 1999]), "ns", [T * 10**6 + 1]),
        (pa.array([T], pa.uint32()), "s", [T * 10**6]),
        (pa.array([2**64 - 1], pa.uint64()), "us", [None]),
        (pa.array([T + 0.25, float("nan"), float("inf")]), "s", [T * 10**6 + 250_000, None, None]),
        (pa.array([Decimal("1592955233.123456")]), "s", [T * 10**6 + 123_456]),
        (
            pa.array([str(T), f"{T}.5", "", None, "x"]),
            "s",
            [T * 10**6, T * 10**6 + 500_000, None, None, None],
        ),
        (pa.array([str(T * 10**9 + 1999), "no"]), "ns", [T * 10**6 + 1, None]),
        (pa.array([str(T * 10**9 + 1999)]), "ns", [T * 10**6 + 1]),
        (pa.array(["9" * 19, "9" * 400, "1e999"]), "s", [None, None, None]),
        (pa.array([-1, 0, 94_694_399, 94_694_400]), "s", [None, None, None, 94_694_400 * 10**6]),
        (
            pa.array([NOW_US + 300_000_000, NOW_US + 300_000_001]),
            "us",
            [NOW_US + 300_000_000, None],
        ),
    ],
)
def test_numbers_with_a_unit(column: pa.Array, unit: str, expected: list[int | None]) -> None:
    assert read(column, unit) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_native_times_of_every_unit(unit: str, zone: str | None) -> None:
    moment = datetime(2020, 6, 23, 23, 33, 53, tzinfo=UTC if zone else None)
    column = pa.array([moment, None]).cast(pa.timestamp(unit, zone))
    assert read(column) == [T * 10**6, None]
    assert read(column, unit="s") == [T * 10**6, None]  # a native type needs no unit


def test_native_times_far_out_and_dates() -> None:
    column = pa.array([2**62, -(2**62), 0], pa.int64()).cast(pa.timestamp("s"))
    assert read(column) == [None, None, 0]
    for kind in (pa.date32(), pa.date64()):
        assert read(pa.array([date(1970, 1, 2)], kind)) == [DAY_US]


def test_a_time_zone_is_for_times_without_an_offset() -> None:
    texts = pa.array(["2020-06-24T01:33:53", "2020-06-23T23:33:53Z", "9999-12-31", "0001-01-01"])
    assert read(texts, timezone="Europe/Berlin") == [T * 10**6, T * 10**6, None, None]
    native = pa.array([datetime(2020, 6, 24, 1, 33, 53)], pa.timestamp("ms"))
    assert read(native, timezone="Europe/Berlin") == [T * 10**6]
    assert read(native, timezone="+02:00") == [T * 10**6]
    # 02:30 came twice on that night, and not at all on the other.
    for text, expected in (
        ("2020-10-25 02:30:00", 1_603_585_800),
        ("2020-03-29 02:30:00", 1_585_443_600),
    ):
        assert read(pa.array([text]), timezone="Europe/Berlin") == [expected * 10**6]
    with pytest.raises(InputError, match="time zone"):
        parser(timezone="Mars/Olympus")


def test_the_first_time_decides_whether_an_offset_is_needed() -> None:
    with_offsets = parser()
    first = with_offsets.parse(pa.array(["", "2020-06-23T23:33:53Z", "2020-06-23T23:33:53"]))
    assert first.outcome.tolist()[1] == 0
    assert with_offsets.reason("2020-06-23T23:33:53", first, 2).startswith(
        "timestamp '2020-06-23T23:33:53': timestamp without UTC offset in a column that has them"
    )
    later = with_offsets.parse(pa.array(["2020-06-23T23:33:53"]))
    assert later.outcome.tolist() != [0]

    without = parser()
    assert without.parse(pa.array(["2020-06-23T23:33:53"])).us.tolist() == [T * 10**6]
    assert without.parse(pa.array(["2020-06-23T23:33:53+01:00"])).us.tolist() == [
        (T - 3600) * 10**6
    ]


@pytest.mark.parametrize(
    ("unit", "value", "hint"),
    [
        ("s", T * 1000, "is the unit ms"),
        ("ms", T * 10**6, "is the unit us"),
        ("us", T * 10**9, "is the unit ns"),
    ],
)
def test_a_wrong_unit_stops_at_the_first_chunk(unit: str, value: int, hint: str) -> None:
    for column in (pa.array([value] * 3), pa.array([str(value)])):
        with pytest.raises(InputError, match=hint) as caught:
            parser(unit).parse(column)
        assert (caught.value.field, caught.value.value) == ("--unit", unit)
        assert str(value) in str(caught.value)


def test_the_message_of_a_wrong_unit_names_the_year() -> None:
    with pytest.raises(InputError) as caught:
        parser("s").parse(pa.array([1592955233000]))
    assert "timestamp 1592955233000 as s is in the year 52448; is the unit ms?" in str(caught.value)


def test_a_unit_too_small_is_noticed_in_every_row() -> None:
    with pytest.raises(InputError, match=r"as ms is before 1973; is the unit s\?"):
        parser("ms").parse(pa.array([T]))
    for kind in (pa.int64(), pa.float64(), pa.string()):
        mixed = parser("ms")
        column = pa.array([T * 1000, T, 5, T * 1000]).cast(kind)
        times = mixed.parse(column)
        assert (times.outcome == 0).tolist() == [True, False, False, True]
        assert "as ms is before 1973; is the unit s?" in mixed.reason(column[1].as_py(), times, 1)
        assert mixed.reason(column[2].as_py(), times, 2).endswith("is before 1973")
        later = mixed.parse(column[1:])
        assert (later.outcome == 0).tolist() == [False, False, True]


@pytest.mark.parametrize(
    "column", [pa.array([None, T]), pa.array([float(T)]), pa.array(["", str(T)])]
)
def test_numbers_without_a_unit_are_refused_with_a_guess(column: pa.Array) -> None:
    with pytest.raises(InputError, match=r"looks like s \(2020-06-23\)") as caught:
        parser().parse(column)
    assert caught.value.field == "--unit"


def test_a_column_that_holds_no_times_at_all() -> None:
    with pytest.raises(InputError, match="RFC 3339") as caught:
        parser().parse(pa.array(["yesterday", "today"]))
    assert (caught.value.field, caught.value.value) == ("timestamp", "yesterday")
    with pytest.raises(InputError, match="empty in all of the first 2 rows"):
        parser().parse(pa.nulls(2))
    with pytest.raises(InputError, match="holds no times"):
        parser("s").parse(pa.array([True]))
    with pytest.raises(InputError, match="expected one of: s, ms, us, ns"):
        parser("minutes")


def test_single_bad_rows_are_told_apart_later() -> None:
    times = parser("s")
    times.parse(pa.array([T]))
    chunk = times.parse(pa.array(["1592955233000", "soon", None, "-5", str(NOW_US // 10**6 + 301)]))
    values = ["1592955233000", "soon", None, "-5", str(NOW_US // 10**6 + 301)]
    assert [times.reason(value, chunk, row) for row, value in enumerate(values)] == [
        "timestamp 1592955233000 as s is in the year 52448; is the unit ms?",
        "timestamp 'soon': expected a number of s",
        "timestamp is missing",
        "timestamp -5 as s is before 1970",
        "timestamp 1700000301 is more than 300 s in the future",
    ]
