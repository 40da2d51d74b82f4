"""Short SELECTs, in both databases."""

from recsys.ingest.event_body import check_event
from recsys.storage.engine.short_selects import values_from
from recsys.storage.entities import event_rows
from recsys.storage.schema.tables import events

NOW = 1_760_000_000_000_000


def test_values_are_looked_up_one_by_one(database):
    with database.begin() as connection:
        given = ({"user_id": f"u{number % 5}", "item_id": "a"} for number in range(40))
        event_rows.insert_events(connection, [check_event(one, NOW) for one in given], NOW)
    with database.connect() as connection:
        assert values_from(connection, events.c.user_id, "", 10) == [f"u{n}" for n in range(5)]
        assert values_from(connection, events.c.user_id, "u2", 2) == ["u2", "u3"]
        assert values_from(connection, events.c.user_id, "v", 2) == []
