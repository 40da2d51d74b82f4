"""The event frame."""

import pyarrow as pa
import pytest

from recsys.errors import InputError
from recsys.events.frame import frame_from_table


def test_more_types_than_codes_are_refused_and_not_taken_for_others():
    rows = 40_000
    table = pa.table(
        {
            "user_id": ["u"] * rows,
            "session_id": pa.nulls(rows, pa.string()),
            "item_id": ["i"] * rows,
            "event_type": [f"type-{number}" for number in range(rows)],
            "timestamp_us": range(rows),
        }
    )
    with pytest.raises(InputError, match="expected at most 32,767 types"):
        frame_from_table(table)
