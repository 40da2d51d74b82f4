"""Gorse's dump and its JSON Lines, read to the same users, items and events."""

import gzip
import json
import struct

import pytest

from recsys.errors import InputError
from recsys.events.times import SECOND_US, rfc3339
from recsys.ingest.event_files import ReadOptions, read_events
from recsys.ingest.gorse_exports import read_gorse
from recsys.ingest.layouts import ColumnMap

NOW_US = 1_735_689_600 * SECOND_US
OPTIONS = ReadOptions(format="gorse")
USERS = [{"UserId": "u", "Labels": {"age": [24]}, "Comment": "c"}, {"UserId": "v"}]
ITEMS = [
    {
        "ItemId": "i",
        "IsHidden": True,
        "Categories": ["a", "b"],
        "Timestamp": "1962-01-01T00:00:00Z",
        "Labels": ["x"],
        "Comment": "Title",
    }
]
TIME = "2024-01-01T00:00:00.25Z"
FEEDBACK = [
    {"FeedbackType": "read", "UserId": "u", "ItemId": "i", "Value": 2.5, "Timestamp": TIME},
    {"FeedbackType": "like", "UserId": "u", "ItemId": "j", "Updated": TIME, "Labels": "l"},
    {"FeedbackType": "like", "UserId": "v", "ItemId": "j"},
    {"FeedbackType": "like", "UserId": "v", "ItemId": "j", "Timestamp": "2030-01-01T00:00:00Z"},
]
NAMES = {
    -1: {"UserId": 1, "Labels": 2, "Comment": 3},
    -2: {"ItemId": 2, "IsHidden": 3, "Categories": 4, "Timestamp": 5, "Labels": 6, "Comment": 7},
    -3: {
        **{"FeedbackType": 2, "UserId": 3, "ItemId": 4, "Value": 5, "Timestamp": 6},
        **{"Comment": 7, "Updated": 8, "Labels": 9},
    },
}


def varint(number):
    number &= 2**64 - 1
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def block(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(section, row):
    from recsys.ingest.date_texts import date_text_us

    parts = [block(15, b"of a later release")]
    for name, value in row.items():
        number = NAMES[section][name]
        if name == "Value":
            parts.append(varint(number << 3 | 1) + struct.pack("<d", value))
        elif name == "IsHidden":
            parts.append(varint(number << 3) + varint(value))
        elif name in ("Timestamp", "Updated"):
            seconds, rest = divmod(date_text_us(value), SECOND_US)
            moment = varint(8) + varint(seconds) + varint(16) + varint(rest * 1_000)
            parts.append(block(number, moment))
        elif name == "Labels":
            parts.append(block(number, json.dumps(value).encode()))
        else:
            given = value if isinstance(value, list) else [value]
            parts += [block(number, one.encode()) for one in given]
    return b"".join(parts)


def number(value):
    return struct.pack("<q", value)


def dump(sections=((-1, USERS), (-2, ITEMS), (-3, FEEDBACK))):
    parts = []
    for section, rows in sections:
        parts.append(number(section))
        for row in rows:
            data = message(section, row)
            parts += [number(len(data)), data]
    return b"".join([*parts, number(0)])


def lines():
    return "".join(json.dumps(row) + "\n" for row in (*USERS, *ITEMS, *FEEDBACK)).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("dump", dump()),
        ("items-first", dump(((-2, ITEMS), (-1, USERS), (-3, FEEDBACK)))),
        ("dump.gz", gzip.compress(dump())),
        ("all.jsonl", lines()),
        ("all.gz", gzip.compress(lines())),
    ],
)
@pytest.mark.parametrize("rows", [2, 1_000])
def test_every_export_is_read_to_the_same(tmp_path, name, data, rows):
    path = tmp_path / name
    path.write_bytes(data)
    found = list(read_gorse(path, NOW_US, rows))
    users = [one for chunk in found for one in chunk.users]
    assert [one.user_id for one in users] == ["u", "v"]
    assert json.loads(users[0].attributes) == {"comment": "c", "labels": {"age": [24]}}
    (item,) = [one for chunk in found for one in chunk.items]
    assert (item.item.title, item.item.available, item.item.categories) == (
        "Title",
        False,
        ("a", "b"),
    )
    assert rfc3339(item.added_us) == "1962-01-01T00:00:00.000000Z"
    assert json.loads(item.item.properties)["labels"] == ["x"]

    chunks = list(read_events(path, OPTIONS, NOW_US, rows))
    events = [row for chunk in chunks for row in chunk.events.to_pylist()]
    assert [(e["user_id"], e["item_id"], e["event_type"], e["value"]) for e in events] == [
        ("u", "i", "read", 2.5),
        ("u", "j", "like", None),
    ]
    assert [rfc3339(e["timestamp_us"]) for e in events] == ["2024-01-01T00:00:00.250000Z"] * 2
    assert json.loads(events[1]["properties"]) == {"labels": "l"}
    assert all(e["event_id"].startswith("gorse:put:") for e in events)
    again = [
        row for chunk in read_events(path, OPTIONS, NOW_US + 1) for row in chunk.events.to_pylist()
    ]
    assert [e["event_id"] for e in again] == [e["event_id"] for e in events]
    refused = [one for chunk in chunks for one in chunk.rejections]
    assert [one.reason.partition(":")[0].split(" ")[0] for one in refused] == ["Timestamp"] * 2
    assert "is missing" in refused[0].reason and "future" in refused[1].reason
    assert sum(chunk.read for chunk in chunks) == 4
    assert sum(chunk.bytes_read for chunk in chunks) == len(data)


def test_rows_that_are_nothing_of_gorses_are_rejected(tmp_path):
    path = tmp_path / "mixed.jsonl"
    bad = [{"name": "x"}, {"UserId": ""}, {"ItemId": "a/b"}, {"FeedbackType": "t"}]
    text = "".join(json.dumps(row) + "\n" for row in bad) + "{]\n"
    path.write_text(text + json.dumps(FEEDBACK[0]) + "\n")
    (found,) = read_gorse(path, NOW_US)
    assert [one.position for one in found.rejections] == [1, 2]
    assert [one.position for one in found.rejected_events] == [0, 3, 4]
    assert len(found.events) == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (dump()[:-20], "cut off"),
        (dump()[:-8], "cut off"),
        (number(-3) + number(2**40), "expected at most"),
        (number(-3) + number(-9), "a section of kind -9"),
        (number(-3) + number(3) + b"\x12\x09a" + number(0), "record 0 cannot be read"),
        (number(-3) + number(11) + b"\xff" * 11 + number(0), "record 0 cannot be read"),
        (number(-1) + number(4) + b"\x0a\x02\xff\xfe" + number(0), "record 0 cannot be read"),
        (number(-1) + number(4) + b"\x12\x02{]" + number(0), "record 0 cannot be read"),
    ],
)
def test_a_dump_that_is_cut_off_or_damaged_says_so(tmp_path, data, problem):
    path = tmp_path / "dump"
    path.write_bytes(data)
    with pytest.raises(InputError, match=problem):
        list(read_events(path, OPTIONS, NOW_US))


def test_options_of_columns_are_refused(tmp_path):
    path = tmp_path / "dump"
    path.write_bytes(dump())
    with pytest.raises(InputError, match="--map"):
        read_events(path, ReadOptions(columns=ColumnMap(item="x"), format="gorse"), NOW_US)
