"""Ids of events without one, as release 0.2 made them; stored events are known by them for ever."""

import pyarrow as pa
import pytest

from recsys.events.fields import EVENT_SCHEMA
from recsys.events.identity import content_hashes

NAMES = (
    "user_id", "session_id", "item_id", "event_type", "timestamp_us",
    "event_id", "value", "recommendation_id", "properties",
)  # fmt: skip
ROWS = [
    ("0c2abc712340e1ccf7ebce98c010a15f", ("u", "s", "i", "view", 5, None, 1.0, None, None)),
    ("630a7e1606c8d9906ece532df928c374", ("u", None, "i", "view", 5, None, None, None, None)),
    ("60dcb7441132a2921fb9b00f472378bf", (None, "s", "i", "view", 5, None, None, None, None)),
    (
        "35a7ca8d16339313f8fd1686b4aba3d1",
        ("élan", "séance", "thé vert 🍵", "achat", 1_592_955_233_000_001, None, 0.1, None, None),
    ),
    ("652a7e3c946d3c4a435aa543813df302", ("u", None, "i", "view", 5, None, 0.0, None, None)),
    ("652a7e3c946d3c4a435aa543813df302", ("u", None, "i", "view", 5, None, -0.0, None, None)),
    ("15001d2381b60947c20e8518f041c3ff", ("u", None, "i", "view", 5, None, -1.5e-300, None, None)),
    (
        "7232c28f9f2e71c237286bdd0705aedf",
        ("u", None, "i", "view", 0, "e-1", None, "r-1", '{"a":{"b":[1,2]},"ü":"x"}'),
    ),
]


def table_of(rows):
    values = [dict(zip(NAMES, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(values, schema=EVENT_SCHEMA)


@pytest.mark.parametrize(("expected", "row"), ROWS)
def test_the_id_of_a_row_is_that_of_release_0_2(expected, row):
    assert content_hashes(table_of([row])) == [expected]


def test_a_field_more_changes_no_id():
    table = table_of([row for _, row in ROWS])
    wider = table.append_column("device", pa.array(["phone"] * len(ROWS)))
    assert content_hashes(wider) == [expected for expected, _ in ROWS]
