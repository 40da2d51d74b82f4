"""REST and files accept the same events: one JSON row is checked in both ways."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.events.fields import Event
from recsys.ingest.event_body import check_event
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events

NOW_US = 1_700_000_000_000_000
MAP = ColumnMap.parse(
    "user=user_id,session=session_id,item=item_id,timestamp=timestamp,"
    "event_type=event_type,event_id=event_id,value=value"
)

IDS = st.one_of(
    st.text(max_size=5),
    st.text(st.characters(codec=None, exclude_categories=()), max_size=4),
    st.sampled_from(["", " ", "nan", "NULL", r"\N", "007", "1.0", " a\u00a0", "1.5E+12", "12e4"]),
    st.sampled_from(["a/b", "\x00", "\ud800", "é" * 256, "é" * 257, " " + "é" * 256]),
    st.integers(250, 260).map(lambda length: "x" * length),
)
MOMENTS = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.from_regex(
        r"(19[67]|20[0-3]|999)\d-\d\d-[0-3]\dT[0-2]\d:[0-6]\d:[0-6]\d(\.\d{1,9})?Z", fullmatch=True
    ),
    st.from_regex(r"2023-11-14[Tt ]2\d:\d\d:\d\d[+-]\d\d:\d\d", fullmatch=True),
    st.text("0123456789-:TZ +.", max_size=25).map(lambda text: text + "Z"),
)


def from_rest(raw: dict[str, object]) -> Event | None:
    try:
        return check_event(raw, NOW_US)
    except InputError:
        return None


def from_file(raw: dict[str, object], unit: str | None) -> Event | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.jsonl"
        path.write_text(json.dumps(raw), encoding="utf-8")
        options = ReadOptions(columns=MAP, unit=unit)
        try:
            chunks = list(read_events(path, options, NOW_US))
        except InputError as error:  # a first block without one good time
            if error.field not in ("--unit", "timestamp"):
                raise
            return None
    assert sum(chunk.read for chunk in chunks) == 1
    rows = [row for chunk in chunks for row in chunk.events.to_pylist()]
    if not rows:
        assert [len(chunk.rejections) for chunk in chunks] == [1]
        return None
    row = rows[0]
    del row["position"]
    return Event(**row)


def filled(**given_fields: object) -> dict[str, object]:
    """A row with every column that the map names."""
    names = MAP.mapped().values()
    return (
        dict.fromkeys(names)
        | {"user_id": "u", "item_id": "i", "timestamp": NOW_US // 1000}
        | given_fields
    )


@settings(max_examples=300, deadline=None)
@given(IDS, st.sampled_from(["user_id", "session_id"]), IDS)
def test_ids(item_id: str, owner: str, owner_id: str) -> None:
    raw = filled(**{"item_id": item_id, "user_id": None, owner: owner_id})
    assert from_file(raw, "ms") == from_rest(raw)


@settings(max_examples=150, deadline=None)
@given(IDS.filter(bool), IDS.filter(bool))
def test_types_and_event_ids(event_type: str, event_id: str) -> None:
    raw = filled(event_type=event_type, event_id=event_id)
    assert from_file(raw, "ms") == from_rest(raw)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.integers(-(2**70), 2**70), st.integers(0, 2 * NOW_US // 1000)))
@example(NOW_US // 1000 + 300_000)
@example(NOW_US // 1000 + 300_001)
@example(-1)
@example(NOW_US // 1_000_000)
@example(94_694_400_000)
@example(94_694_399_999)
def test_epoch_milliseconds(timestamp: int) -> None:
    raw = filled(timestamp=timestamp)
    assert from_file(raw, "ms") == from_rest(raw)


@settings(max_examples=400, deadline=None)
@given(MOMENTS)
@example("2023-11-14T22:18:20Z")
@example("2023-11-14T22:18:20.000001Z")
@example("1969-12-31T23:59:59.999999Z")
@example("9999-12-31T23:59:59.999999-23:59")
def test_rfc_3339(timestamp: str) -> None:
    raw = filled(timestamp=timestamp)
    accepted = from_rest(raw)
    read = from_file(raw, None)
    # A file may also leave out seconds and the colon of an offset.
    if accepted is not None or len(timestamp) >= len("2023-11-14T22:13:20Z"):
        assert read == accepted


@settings(deadline=None)
@given(st.one_of(st.floats(), st.integers(-(2**60), 2**60)))
def test_values(value: float) -> None:
    raw = filled(value=value)
    if value != value or value in (float("inf"), float("-inf")):
        assert from_rest(raw) is None  # JSON has no such numbers
    else:
        assert from_file(raw, "ms") == from_rest(raw)
