"""New products that come into the shop while it is open, and the visitors who find them.

No training has seen such a product. It is in the next answers because others have just gone to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recsys.events.fields import Event
from recsys.events.identity import RandomIds
from recsys.ingest.item_body import Item
from recsys.storage.engine.database import Database
from recsys.storage.entities import event_rows, item_rows
from recsys.storage.entities.event_batches import read_newest

VISITOR = "shop-"  # session ids of the shop's page begin with it
FOUND_BY = 5  # visitors who go to a new product
LOOKED_AT = 500  # newest events among which a click of the page is looked for


def launch(
    database: Database, products: Mapping[str, Item], since_us: int, now_us: int
) -> str | None:
    """Add a product like the one that was clicked last in the page, to which others go from there; its id.

    `products`: the shop's first ones, by id. None where none of them was clicked in the page after
    `since_us` (µs since 1970, UTC). Raises StorageUnavailableError.
    """
    frame = read_newest(database, LOOKED_AT)
    clicked = [
        (position, frame.item_ids[item])
        for position, item, user, at_us in zip(
            frame.positions, frame.items, frame.users, frame.timestamps_us, strict=True
        )
        if at_us > since_us
        and frame.item_ids[item] in products
        and frame.user_keys[user].startswith(f"s:{VISITOR}")
    ]
    if not clicked:
        return None
    before, new_id = products[max(clicked)[1]], RandomIds()
    made = replace(before, item_id=f"new-{new_id()}", title=f"New: {before.title}")
    posted = [
        Event(f"visitor-{new_id()}", None, item.item_id, "view", now_us + place)
        for _ in range(FOUND_BY)
        for place, item in enumerate((before, made))
    ]
    with database.begin() as connection:
        item_rows.put_items(connection, [made], now_us)
        event_rows.insert_events(connection, posted, now_us)
    return made.item_id
