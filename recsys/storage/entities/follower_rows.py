"""Followers of items that the champion does not know, or among them; a small table, made anew whole."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from recsys.storage.entities.stamps import bump
from recsys.storage.schema.tables import followers

INSERT_ROWS = 5_000


def replace_followers(connection: Connection, steps: Iterable[tuple[str, str, float]]) -> int:
    """Put `steps` (item id, next item id, share) in place of all there are; how many."""
    rows = [{"item_id": a, "next_item_id": b, "share": share} for a, b, share in steps]
    gone = connection.execute(delete(followers)).rowcount
    for at in range(0, len(rows), INSERT_ROWS):
        connection.execute(followers.insert(), rows[at : at + INSERT_ROWS])
    if gone or rows:
        bump(connection, "followers")
    return len(rows)


def all_followers(connection: Connection) -> dict[str, list[tuple[str, float]]]:
    """(next item id, share) by item id, the largest share first."""
    statement = select(followers).order_by(
        followers.c.item_id, followers.c.share.desc(), followers.c.next_item_id
    )
    found: dict[str, list[tuple[str, float]]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.item_id, []).append((row.next_item_id, row.share))
    return found
