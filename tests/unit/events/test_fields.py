from dataclasses import fields

import pyarrow as pa
import pytest
from sqlalchemy import Float, Integer, Text

from recsys.config import EventsSettings
from recsys.events.fields import (
    EVENT_COLUMNS,
    EVENT_FIELDS,
    EVENT_SCHEMA,
    POSTED_FIELDS,
    Event,
    event_table,
)
from recsys.ingest.layouts import MEANINGS
from recsys.storage.entities.history_rows import HistoryEvent
from recsys.storage.schema.tables import events
from recsys.web.api.event_schemas import EventIn, StoredEvent

SQL_TYPES = {"text": Text, "time": Integer, "number": Float, "object": Text}


def test_an_event_has_the_fields_of_the_table_in_their_order():
    assert tuple(entry.name for entry in fields(Event)) == EVENT_COLUMNS
    assert EVENT_SCHEMA.names == list(EVENT_COLUMNS)


def test_the_events_table_has_a_column_for_each_field():
    stored = [column for column in events.columns if column.name in EVENT_COLUMNS]
    assert [column.name for column in stored] == list(EVENT_COLUMNS)
    others = set(events.columns.keys()) - set(EVENT_COLUMNS)
    assert others == {"id", "user_bucket", "received_at_us", "import_id"}
    for column, field in zip(stored, EVENT_FIELDS, strict=True):
        assert isinstance(column.type, SQL_TYPES[field.kind])
        # An event that was posted without an id is stored with one.
        assert column.nullable == (field.nullable and field.name != "event_id")


def test_rest_takes_and_answers_each_field():
    assert list(EventIn.model_fields) == [one.rest_name for one in POSTED_FIELDS]
    assert {one.rest_name for one in EVENT_FIELDS} == set(StoredEvent.model_fields)
    assert [name for name, one in EventIn.model_fields.items() if one.is_required()] == ["item_id"]


def test_what_can_be_mapped_is_a_column_of_files_and_of_a_mapped_table():
    mapped = {one.mapped_as for one in EVENT_FIELDS if one.mapped_as}
    assert mapped == set(MEANINGS)
    mapped = {one.mapped_as for one in EVENT_FIELDS if one.in_table}
    keys = {name for name in EventsSettings.model_fields if name.endswith("_column")}
    assert keys == {f"{meaning}_column" for meaning in (*mapped, "order")}


def test_history_is_made_of_columns_of_an_event():
    assert set(HistoryEvent._fields) <= set(EVENT_COLUMNS)


def test_an_event_table_is_null_where_no_column_is_given():
    given = {
        "user_id": pa.array(["u", None]),
        "session_id": pa.array([None, "s"]),
        "item_id": pa.array(["a", "b"]),
        "event_type": pa.array(["view", "view"]),
        "timestamp_us": pa.array([1, 2]),
    }
    table = event_table(given)
    assert table.schema == EVENT_SCHEMA
    assert table["value"].null_count == table["properties"].null_count == 2
    with pytest.raises(KeyError, match="item_id"):
        event_table({name: given[name] for name in ("user_id", "event_type")})
