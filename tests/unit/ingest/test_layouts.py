from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.ingest.event_files import EventChunk, ReadOptions, read_events
from recsys.ingest.layouts import ColumnMap

NOW_US = 1_900_000_000_000_000
T = 1_396_867_869_277_000  # 2014-04-07T10:51:09.277Z


def rows(path: Path, options: ReadOptions) -> list[tuple[object, ...]]:
    chunks: list[EventChunk] = list(read_events(path, options, NOW_US))
    assert [rejection for chunk in chunks for rejection in chunk.rejections] == []
    names = ("user_id", "session_id", "item_id", "event_type", "timestamp_us", "value")
    return [
        tuple(row[name] for name in names) for chunk in chunks for row in chunk.events.to_pylist()
    ]


LAYOUT_FILES = {
    "retailrocket": (
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1396867869277,257597,view,355908,\n1396867869277,1,transaction,2,4000\n",
        [
            ("257597", None, "355908", "view", T, None),
            ("1", None, "2", "transaction", T, None),
        ],
    ),
    "yoochoose": (
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,214536502,0\n11,2014-04-07T10:51:09.277Z,0021,S\n",
        [
            (None, "1", "214536502", "view", T, None),
            (None, "11", "0021", "view", T, None),
        ],
    ),
    "yoochoose buys": (
        "yoochoose-buys.dat",
        "420374,2014-04-07T10:51:09.277Z,214537888,12462,1\n",
        [(None, "420374", "214537888", "purchase", T, 12462.0)],
    ),
    "diginetica": (
        "train-item-views.csv",
        "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2014-04-07\n2;7;9;0;2014-04-07\n",
        [
            (None, "1", "81766", "view", 1_396_828_800_000_000 + 526_309_000, None),
            ("7", "2", "9", "view", 1_396_828_800_000_000, None),
        ],
    ),
    "diginetica snake": (
        "train-item-views.csv",
        "session_id;user_id;item_id;timeframe;eventdate\n1;;81766;5;2014-04-07\n",
        [(None, "1", "81766", "view", 1_396_828_800_005_000, None)],
    ),
    "movielens csv": (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,31,2.5,1396867869\n",
        [("1", None, "31", "rating", 1_396_867_869_000_000, 2.5)],
    ),
    "movielens dat": (
        "ratings.dat",
        "1::1193::5::1396867869\n1::661::3::1396867870\n",
        [
            ("1", None, "1193", "rating", 1_396_867_869_000_000, 5.0),
            ("1", None, "661", "rating", 1_396_867_870_000_000, 3.0),
        ],
    ),
    "movielens u.data": (
        "u.data",
        "196\t242\t3\t881250949\n",
        [("196", None, "242", "rating", 881_250_949_000_000, 3.0)],
    ),
    "rees46": (
        "2019-Oct.csv",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2014-04-07 10:51:09 UTC,cart,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde\n",
        [("541312140", "72d76fde", "44600062", "cart", 1_396_867_869_000_000, 35.79)],
    ),
}


@pytest.mark.parametrize("case", LAYOUT_FILES)
def test_public_layouts_are_known(tmp_path: Path, case: str) -> None:
    name, text, expected = LAYOUT_FILES[case]
    (tmp_path / name).write_text(text)
    assert rows(tmp_path / name, ReadOptions(format=case.split(" ")[0])) == expected


def test_a_map_wins_over_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("timestamp,visitorid,event,itemid,group\n1396867869277,1,view,2,3\n")
    options = ReadOptions(format="retailrocket", columns=ColumnMap(item="group"))
    assert rows(path, options)[0][2] == "3"


def test_own_column_names_need_no_map(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(
        "user_id,item_id,timestamp_us,event_type,value\nu,i,1700000000000000,cart,1.5\n"
    )
    assert rows(path, ReadOptions()) == [("u", None, "i", "cart", 1_700_000_000_000_000, 1.5)]


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b,c\n1,2,3\n")
    with pytest.raises(InputError, match=r"visitorid.*the file starts a, b, c"):
        read_events(path, ReadOptions(format="retailrocket"), NOW_US)
    with pytest.raises(InputError, match="expected one of: retailrocket, yoochoose"):
        read_events(path, ReadOptions(format="netflix"), NOW_US)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user", "MEANING=COLUMN"),
        ("user=", "MEANING=COLUMN"),
        ("usr=a", "expected one of: user, session, item"),
        ("user=a,user=b", "mapped twice"),
    ],
)
def test_maps_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ColumnMap.parse(text)


def test_a_map_is_read() -> None:
    text = "user=a, session=b,item=c d,timestamp=e,event_type=f,event_id=g,value=h=i"
    assert ColumnMap.parse(text) == ColumnMap("a", "b", "c d", "e", "f", "g", "h=i")
