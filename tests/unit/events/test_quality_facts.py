import json

import numpy as np
import pyarrow as pa

from recsys.events.fields import EVENT_SCHEMA
from recsys.events.frame import frame_from_table
from recsys.events.quality_facts import BOT_EVENTS, newest_facts, sequence_facts
from recsys.events.times import DAY_US

SECOND = 1_000_000


def frame(rows):
    """(user, item, type, seconds), ..."""
    columns = {name: [None] * len(rows) for name in EVENT_SCHEMA.names}
    columns["user_id"] = [row[0] for row in rows]
    columns["item_id"] = [row[1] for row in rows]
    columns["event_type"] = [row[2] for row in rows]
    columns["timestamp_us"] = [row[3] * SECOND for row in rows]
    return frame_from_table(pa.table(columns, EVENT_SCHEMA))


def test_lengths_gaps_and_repeats_by_hand():
    facts = sequence_facts(
        frame(
            [
                ("a", "tea", "view", 0),
                ("a", "tea", "view", 0),  # an exact repeat
                ("a", "tea", "purchase", 0),  # the same item, no gap, another type
                ("a", "cup", "view", 5),
                ("b", "tea", "view", 10_000),
                ("c", "tea", "view", 0),
                ("c", "cup", "view", 90_000),
            ]
        )
    )
    assert (facts["events"], facts["users"], facts["median_length"]) == (7, 3, 2.0)
    assert facts["lengths"] == [["1", 1], ["2", 1], ["3 to 4", 1]]
    assert facts["gaps"][:2] == [["under 1 s", 2], ["1 to 10 s", 1]]
    assert facts["gaps"][-1] == ["1 to 7 days", 1]
    assert facts["exact_repeats"] == 1 / 7
    assert facts["same_item"] == facts["same_time"] == 2 / 4
    assert facts["popularity"]["distinct"] == 2
    assert facts["popularity"]["events"][-1] == facts["popularity"]["items"][-1] == 1.0
    json.dumps(facts, allow_nan=False)


def test_nothing_is_nothing():
    empty = frame([])
    facts = {**sequence_facts(empty), **newest_facts(empty, set())}
    assert facts["events"] == facts["users"] == 0
    assert facts["unknown"] is facts["median_length"] is facts["exact_repeats"] is None
    json.dumps(facts, allow_nan=False)


def test_unknown_items_are_counted_by_day():
    day = 86_400
    rows = [("a", "tea", "view", 0), ("a", "new", "view", day), ("a", "tea", "view", day + 1)]
    facts = newest_facts(frame(rows), {"tea"})
    assert facts["unknown"] == 1 / 3
    assert facts["unknown_by_day"] == [[0, 1, 0.0], [DAY_US, 2, 0.5]]
    assert newest_facts(frame(rows), None)["unknown"] is None


def test_machines_are_told_from_keen_people():
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.integers(20, 90, 3 * BOT_EVENTS))
    keen = [("keen", f"i{at % 40}", "view", int(time)) for at, time in enumerate(times)]
    quick = [("machine", f"i{at}", "view", at // 3) for at in range(2 * BOT_EVENTS)]
    few = [("few", "tea", "view", at // 3) for at in range(6)]
    found = {one["key"]: one for one in newest_facts(frame(keen + quick + few), None)["busiest"]}
    assert list(found) == ["u:keen", "u:machine", "u:few"]
    assert [one["machine"] for one in found.values()] == [False, True, False]
    assert found["u:keen"]["items"] == 40 and found["u:machine"]["most_in_an_hour"] == 100
