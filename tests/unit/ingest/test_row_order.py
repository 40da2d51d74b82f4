"""Rows of one time follow in the order that the file runs in, newest first or oldest first."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events

T = 1_592_955_233
MAP = ColumnMap.parse("user=u,item=i,timestamp=t")


def sequence(
    rows: list[tuple[str, str, int]], order: str = "auto", chunk_rows: int = 3
) -> list[str]:
    """The items in order of time and position."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text("u,i,t\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
        options = ReadOptions(columns=MAP, unit="s", order=order)
        chunks = list(read_events(path, options, 1_700_000_000_000_000, chunk_rows))
    events = [row for chunk in chunks for row in chunk.events.to_pylist()]
    assert len({row["position"] for row in events}) == len(rows)
    events.sort(key=lambda row: (row["timestamp_us"], row["position"]))
    return [row["item_id"] for row in events]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.booleans())
def test_a_file_that_runs_backwards_is_the_same_log(steps: list[int], by_user: bool) -> None:
    steps[0] = max(steps[0], 1)  # two times at least, within the first chunk
    times = [T] + [T + sum(steps[: n + 1]) for n in range(len(steps))]
    rows = [("u", f"i{n}", time) for n, time in enumerate(times)]
    expected = [row[1] for row in rows]
    assert sequence(rows, chunk_rows=100) == expected
    other = [("v", f"other {item}", time) for _, item, time in rows] if by_user else []
    backwards = sequence(rows[::-1] + other[::-1], chunk_rows=100)
    assert [item for item in backwards if item in expected] == expected


def test_the_order_may_be_said() -> None:
    rows = [("u", "a", T), ("u", "b", T), ("u", "c", T)]
    assert sequence(rows) == ["a", "b", "c"]
    assert sequence(rows, "newest-first") == ["c", "b", "a"]
    falling = [("u", "c", T + 1), ("u", "b", T), ("u", "a", T)]
    assert sequence(falling) == ["a", "b", "c"]
    assert sequence(falling, "oldest-first") == ["b", "a", "c"]
    with pytest.raises(InputError, match="newest-first"):
        sequence(rows, "backwards")


def test_a_time_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "u,i,t\nu1,i1,29-01-2021 07:01\nu1,i2,05-02-2021 07:02\nu1,i3,31-02-2021 07:02\n"
    )
    options = ReadOptions(columns=MAP, time_format="%d-%m-%Y %H:%M")
    (chunk,) = read_events(path, options, 1_700_000_000_000_000)
    assert chunk.events["timestamp_us"].to_pylist() == [
        1_611_903_660_000_000,
        1_612_508_520_000_000,
    ]
    assert chunk.rejections[0].reason == ("timestamp '31-02-2021 07:02': expected %d-%m-%Y %H:%M")
    with pytest.raises(InputError, match="--time-format"):
        read_events(path, ReadOptions(columns=MAP), 1_700_000_000_000_000).__next__()
    with pytest.raises(InputError, match="a format with a year"):
        read_events(path, ReadOptions(columns=MAP, time_format="%d.%m."), 0)
