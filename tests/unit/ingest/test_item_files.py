from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from recsys.errors import InputError
from recsys.ingest.event_files import file_size
from recsys.ingest.item_body import Item, check_item
from recsys.ingest.item_files import ItemChunk, ItemMap, ItemOptions, read_items

TEA = Item(
    item_id="7",
    title="Green Tea",
    categories=("drinks", "tea"),
    price=2.5,
    image="https://example.org/7.png",
    available=False,
    properties='{"colour":"green","weight":100}',
)
MAP = ItemMap.parse("item=sku,title=name,categories=groups,price=eur,image=picture,available=stock")


def read(path: Path, columns: ItemMap = MAP, rows: int = 10_000) -> ItemChunk:
    chunks = list(read_items(path, ItemOptions(columns), rows))
    for chunk in chunks:
        assert chunk.read == len(chunk.items) + len(chunk.rejections) <= rows
    assert sum(chunk.bytes_read for chunk in chunks) == file_size(path)
    return ItemChunk(
        items=[item for chunk in chunks for item in chunk.items],
        rejections=[rejection for chunk in chunks for rejection in chunk.rejections],
        read=sum(chunk.read for chunk in chunks),
        bytes_read=file_size(path),
    )


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "sku,name,groups,eur,picture,stock,colour,weight\n"
        "7,Green  Tea,drinks|tea|drinks,2.50,https://example.org/7.png,no,green,100\n"
        '8,,"[""drinks"", ""a|b""]",,,,,\n'
    )
    tea, plain = read(path).items
    assert tea.properties == '{"colour":"green","weight":"100"}'  # text: nothing is guessed
    assert tea.price == 2.5
    assert tea.title == "Green Tea"
    assert (tea.categories, tea.available) == (("drinks", "tea"), False)
    emptied = '{"colour":null,"weight":null}'  # an empty cell takes away
    assert plain == Item("8", None, ("drinks", "a|b"), None, None, True, emptied)
    assert plain.given == tea.given - {"available"}  # which an empty cell says nothing of


def test_json_lines_and_parquet_agree(tmp_path: Path) -> None:
    row = {
        "sku": 7,
        "name": "Green Tea",
        "groups": ["drinks", "tea"],
        "eur": 2.5,
        "picture": "https://example.org/7.png",
        "stock": False,
        "colour": "green",
        "weight": 100,
        "nothing": None,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + '\n{"sku": "8", "later": {"a": [1]}}\n')
    first, second = read(tmp_path / "a.jsonl").items
    cleared = '{"colour":"green","nothing":null,"weight":100}'
    assert first == replace(TEA, properties=cleared)
    assert second.given == {"item_id", "properties"}  # what a row has no key for is not given
    assert second == Item("8", None, (), None, None, True, '{"later":{"a":[1]}}')

    table = pa.Table.from_pylist([row | {"eur": Decimal("2.50"), "sku": 7.0}])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").items == [first]


def test_bad_rows_are_told(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    rows = [
        b"1,a,,1,,,",
        b",a,,1,,,",
        b"2,a,,dear,,,",
        b"3,a,,-1,,,",
        b"4,a,,,,perhaps,",
        b"5,a,[1;,,,,",
        b"6,caf\xe9,,,,,",
        b"7,a",
        b"8," + b"t" * 1_025 + b",,,,,",
        b"9,a,,,,," + b"p" * 9_000,
        b"10,a,,,,,",
    ]
    path.write_bytes(b"sku,name,groups,eur,picture,stock,other\n" + b"\n".join(rows))
    chunk = read(path, rows=3)
    assert [item.item_id for item in chunk.items] == ["1", "10"]
    assert {
        rejection.position: rejection.reason.split(" ")[0] for rejection in chunk.rejections
    } == {
        1: "item_id",
        2: "price",
        3: "price",
        4: "available",
        5: "categories",
        6: "name",
        7: "expected",
        8: "title",
        9: "properties",
    }
    assert json.loads(chunk.rejections[1].raw)["eur"] == "dear"


def test_own_names_need_no_map(tmp_path: Path) -> None:
    path = tmp_path / "items.tsv"
    path.write_text("item_id\ttitle\textra\n7\tTea\tx\n")
    assert read(path, ItemMap()).items == [Item("7", "Tea", (), None, None, True, '{"extra":"x"}')]
    assert read(path, ItemMap()).items[0].given == {"item_id", "title", "properties"}


def test_a_decimal_comma_is_told(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('item_id,price\nA,"12,50"\n')
    (rejection,) = read(path, ItemMap()).rejections
    assert rejection.reason == (
        "price = '12,50': expected a number, with a point before its decimals (12.50)"
    )


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("sku,name\n7,Tea\n")
    with pytest.raises(InputError, match="the file has sku, name"):
        read_items(path, ItemOptions(ItemMap(item="id")))
    with pytest.raises(InputError, match="which column is the item; the file has sku, name"):
        read_items(path, ItemOptions())
    with pytest.raises(InputError, match="expected one of: item, title, categories"):
        ItemMap.parse("user=a")
    with pytest.raises(InputError, match="no such file"):
        read_items(tmp_path / "none.csv", ItemOptions(MAP))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"item_id": 7.5}, "item_id"),
        ({"item_id": ""}, "item_id"),
        ({"title": 7}, "title"),
        ({"title": "a\x00b"}, "title"),
        ({"categories": "drinks"}, "categories"),
        ({"categories": [1]}, "categories"),
        ({"categories": [f"c{n}" for n in range(65)]}, "categories"),
        ({"price": "1"}, "price"),
        ({"price": float("nan")}, "price"),
        ({"price": True}, "price"),
        ({"available": 1}, "available"),
        ({"properties": [1]}, "properties"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_with_an_item_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as caught:
        check_item({"item_id": "7", **change})
    assert caught.value.field == field
