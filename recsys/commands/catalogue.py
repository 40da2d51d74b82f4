"""Hide an item from all answers, or show it again, with an audit line; items that come as data leave none."""

from __future__ import annotations

from recsys.ingest.item_body import check_item
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.storage.entities.audit_rows import Actor, add_audit


def set_availability(
    database: Database, actor: Actor, item_id: str, available: bool, now_us: int
) -> None:
    """Let an item into answers or keep it out of them, from the next request on.

    An item without metadata gets a row that says no more than that.
    """
    with database.begin() as connection:
        given = check_item({"item_id": item_id, "available": available})
        item_rows.put_items(connection, [given], now_us)
        action = "item.show" if available else "item.hide"
        add_audit(connection, actor, action, item_id, now_us)
