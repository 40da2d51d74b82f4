"""The same rows give the same sequences through every way in, and every row is accounted for.

The oracle reads a row by itself, slowly, and shares no code with the product.
"""

import csv
import json
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies
from sqlalchemy import create_engine, text

from recsys import pipeline
from recsys.config import Settings
from recsys.errors import InputError
from recsys.events.times import to_us
from recsys.ingest.event_body import check_event
from recsys.ingest.event_files import ColumnMap, ReadOptions, read_events
from recsys.storage.external.external_database import parse_source_url
from recsys.storage.external.external_events import ExternalEvents
from recsys.storage.external.external_rows import Tally
from tests.integration.own_table.conftest import KINDS, _database

NOW = datetime(2025, 1, 2, tzinfo=UTC)
T = 1_700_000_000
NAMES = ("u", "s", "i", "k", "t")
OPTIONS = ReadOptions(
    columns=ColumnMap.parse("user=u,session=s,item=i,event_type=k,timestamp=t"), unit="s"
)
IDS = strategies.sampled_from(
    [
        None,
        "",
        " ",
        "u1",
        "u1",
        " u1",
        "u1 ",
        "U1",
        "1001",
        "1001.0",
        "007.0",
        "NULL",
        r"\N",
        "nan",
        "N/A",
        "é/%",
        "a,b",
        "'=1",
        "1.59296E+12",
        "x" * 256,
        "x" * 257,
        'q"q',
    ]
)
KINDS_OF_EVENT = strategies.sampled_from([None, "", "view", " view", "cart", "NULL", "y" * 65])
TIMES = strategies.sampled_from([T, T, T + 1, T + 2, T - 86_400, 5, 4_000_000_000, None])
ROWS = strategies.lists(
    strategies.tuples(IDS, IDS, IDS, KINDS_OF_EVENT, TIMES), min_size=1, max_size=12
)
# So that a file whose first rows are all bad is not taken for one of another kind.
FIRST = [("first", None, "i", None, T)]


def meant(cell):
    """A text as it is to be read; None where it stands for no value."""
    cell = "" if cell is None else cell.strip(" ")
    if cell in ("", "NULL", "null", r"\N", "NaN", "nan", "None", "<NA>"):
        return None
    found = re.fullmatch(r"(0|-?[1-9][0-9]{0,14})\.0+", cell)
    return found[1] if found else cell


def bad(cell, most=256):
    return cell is not None and (len(cell) > most or cell == "1.59296E+12")


def oracle(rows):
    """(owner -> its events, oldest first; how many rows are none)."""
    found, refused = [], 0
    for number, (user, session, item, kind, time) in enumerate(rows):
        user, session, item, kind = map(meant, (user, session, item, kind))
        timely = time is not None and 94_694_400 <= time <= NOW.timestamp() + 300
        ids_fit = not any(map(bad, (user, session, item))) and not bad(kind, 64)
        if not timely or not ids_fit or item is None or (user is None and session is None):
            refused += 1
            continue
        owner = f"u:{user}" if user is not None else f"s:{session}"
        found.append((time * 1_000_000, number, owner, item, kind or "view"))
    return sequences(found), refused


def sequences(events):
    """Owner -> (time, item, type), of events as (time, place, owner, item, type)."""
    each = {}
    for us, _, owner, item, kind in sorted(events):
        each.setdefault(owner, []).append((us, item, kind))
    return each


def as_events(table):
    names = ("timestamp_us", "position", "user_id", "session_id", "item_id", "event_type")
    for us, place, user, session, item, kind in zip(
        *(table[name].to_pylist() for name in names), strict=True
    ):
        yield us, place, f"u:{user}" if user is not None else f"s:{session}", item, kind


def write(path, rows):
    named = [dict(zip(NAMES, row, strict=True)) for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in named))
    elif path.suffix == ".json":
        path.write_text(json.dumps(named))
    elif path.suffix == ".parquet":
        schema = pa.schema([(name, pa.string()) for name in NAMES[:-1]] + [("t", pa.int64())])
        pq.write_table(pa.Table.from_pylist(named, schema=schema), path)
    else:
        with path.open("w", newline="") as file:
            stop = "\t" if path.suffix == ".tsv" else ","
            writer = csv.writer(file, delimiter=stop, quoting=csv.QUOTE_ALL)
            writer.writerow(NAMES)
            writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return path


FILES = ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet")


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_files_and_requests_give_the_same_sequences(rows):
    rows = FIRST + rows
    wanted, refused = oracle(rows)
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            path = write(Path(folder) / name, rows)
            # Order is said, for a few rows may well look as if they ran backwards.
            options = ReadOptions(columns=OPTIONS.columns, unit="s", order="oldest-first")
            chunks = list(read_events(path, options, to_us(NOW), 3))
            events = pa.concat_tables(chunk.events for chunk in chunks)
            assert sequences(as_events(events)) == wanted, name
            assert sum(len(chunk.rejections) for chunk in chunks) == refused, name
            assert sum(chunk.read for chunk in chunks) == len(rows) == events.num_rows + refused
    posted = []
    for number, (user, session, item, kind, time) in enumerate(rows):
        body = {"user_id": user, "session_id": session, "item_id": item, "event_type": kind}
        body = {name: cell for name, cell in body.items() if cell != ""}
        try:  # without a time a posted event is of now, so a missing one is not asked for
            event = check_event(
                {**body, "timestamp": -1 if time is None else time * 1000}, to_us(NOW)
            )
        except InputError:
            continue
        owner = f"u:{event.user_id}" if event.user_id else f"s:{event.session_id}"
        posted.append((event.timestamp_us, number, owner, event.item_id, event.event_type))
    assert sequences(posted) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_table_gives_the_same_sequences(kind, own, request, tmp_path):
    quote = "`" if kind == "mysql" else '"'
    ids = "TEXT" if kind == "sqlite" else "VARCHAR(300)"
    columns = ", ".join(f"{quote}{name}{quote} {ids}" for name in NAMES[:-1])
    charset = " CHARACTER SET utf8mb4" if kind == "mysql" else ""
    events = {f"{key}_column": name for key, name in OPTIONS.columns.mapped().items()}
    events |= {"table": "log", "order_column": "no", "unit": "s"}
    with _database(kind, request, tmp_path) as url:
        engine = create_engine(parse_source_url(url))
        with engine.begin() as connection:
            create = f"CREATE TABLE log (no BIGINT PRIMARY KEY, {columns}, t BIGINT){charset}"
            connection.execute(text(create))

        @settings(
            max_examples=25 if kind == "sqlite" else 6,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(ROWS)
        def check(rows):
            rows = FIRST * 20 + rows  # enough to tell the kinds of columns by
            with engine.begin() as connection:
                connection.execute(text("DELETE FROM log"))
                values = [
                    {"n": n, **dict(zip(NAMES, row, strict=True))} for n, row in enumerate(rows)
                ]
                insert = "INSERT INTO log VALUES (:n, :u, :s, :i, :k, :t)"
                connection.execute(text(insert), values)
            source, tally = ExternalEvents(Settings(events={**events, "url": url}), own), Tally()
            try:
                batches = list(source.rows().batches(to_us(NOW), tally=tally))
            finally:
                source.close()
            wanted, refused = oracle(rows)
            assert sequences(as_events(pa.Table.from_batches(batches))) == wanted
            assert (tally.read, sum(tally.dropped.values())) == (len(rows), refused)
            assert tally.read == tally.kept + refused

        check()
        engine.dispose()


def test_each_format_after_the_first_brings_duplicates_alone(own, tmp_path):
    rows = [
        *FIRST,
        ("u1", None, "a", None, T),
        (" u1", "s", "a", "cart", T),
        (None, None, "a", None, T),
    ]
    rows += [
        ("u1", None, "a", "view", T),
        ("1001.0", "NULL", "b ", None, T + 1),
        ("u", None, "c", None, 5),
    ]
    wanted, refused = oracle(rows)
    events = sum(map(len, wanted.values()))
    for number, name in enumerate(FILES):
        path = write(tmp_path / name, rows)
        found = pipeline.import_events(own, path, OPTIONS, NOW)
        assert found.read == found.accepted + found.duplicates + found.rejected + found.skipped
        assert (found.read, found.rejected) == (len(rows), refused)
        assert found.accepted == (0 if number else events), name
