from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from recsys.errors import InputError
from recsys.ingest.cells import CellRules
from recsys.ingest.dialects import TextOptions
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


def test_cells_mean_what_they_mean_in_files_of_events(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "sku,name,groups,eur,picture,stock,brand\n"
        " 1001.0,\u00a0Tea , drinks |tea,2.5 ,NULL,1.0,Acme\u3000\n"
        "nan,x,,,,,\n"
        "1.59296E+12,x,,,,,\n"
        "7,None,NULL,nan,,,N/A\n"
    )
    chunk = read(path)
    tea, plain = chunk.items
    assert tea == Item(
        "1001", "Tea", ("drinks", "tea"), 2.5, None, True, '{"brand":"Acme"}', tea.given
    )
    assert (plain.item_id, plain.title, plain.categories, plain.price) == ("7", None, (), None)
    assert plain.properties == '{"brand":"N/A"}'
    reasons = [rejection.reason for rejection in chunk.rejections]
    assert reasons == [
        "item_id = None: is missing",
        "item_id = '1.59296E+12': a number that has lost its digits",
    ]
    options = ItemOptions(MAP, cells=CellRules.parse("N/A"))
    (given,) = read_items(path, options)
    assert [item.item_id for item in given.items] == ["1001", "nan"]
    assert given.rejections[-1].reason.startswith("price = 'nan': expected a number")


@pytest.mark.parametrize("value", [" 7", "7.0", 7, "\ufeff7"])
def test_an_id_is_one_text_in_requests_and_files(value: object, tmp_path: Path) -> None:
    assert check_item({"item_id": value}).item_id == "7"
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"item_id": value}))
    assert [item.item_id for item in read(path, ItemMap()).items] == ["7"]
    for word in ("NULL", " ", None):
        with pytest.raises(InputError, match="item_id"):
            check_item({"item_id": word})


def test_values_within_others(tmp_path: Path) -> None:
    rows = [
        {"sku": "1", "product": {"name": " Tea", "price": 2.5}, "tags": ["a", " b", "a"]},
        {"sku": "2", "tags": None},
    ]
    columns = ItemMap.parse("item=sku,title=product.name,price=product.price,categories=tags")
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.json", "a.parquet"):
        tea, other = read(tmp_path / name, columns).items
        assert (tea.title, tea.price, tea.categories) == ("Tea", 2.5, ("a", "b"))
        assert (other.title, other.price, other.categories) == (None, None, ())
        assert ("title" in other.given) == (name == "a.parquet")  # a row of JSON has no such key
    with pytest.raises(InputError, match="one item a row"):
        read(tmp_path / "a.json", ItemMap.parse("item=sku,title=product[].name"))


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("a.csv", "7;Müller's \"Tea", {"columns": ("sku", "name"), "quote": "none"}),
        ("a.tsv", "sku\tname\n7\tMüller's \"Tea\n", {}),
        ("a.csv", 'sku,name\n7,"Müller\'s \\"Tea"\n', {"escape": "\\"}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_texts_are_read_as_those_of_events(
    tmp_path: Path, name: str, text: str, options: dict[str, Any], encoding: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding=encoding)
    columns = ItemMap.parse("item=sku,title=name")
    how = TextOptions(**options, encoding=None if encoding == "utf-16" else encoding)
    (chunk,) = read_items(path, ItemOptions(columns, how))
    assert [(item.item_id, item.title) for item in chunk.items] == [("7", "Müller's \"Tea")]
