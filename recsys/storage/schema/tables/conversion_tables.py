"""Conversions and returns by the answers they count for, and whose are to be attributed again."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, Table, Text, false, text

from recsys.storage.schema.tables.table_types import Micros, RowNumber, metadata

# A row for each answer that a conversion or return counts for; one without an answer where there is none.
# What it needs of the answer is copied, for answers are kept for a shorter time.
conversions = Table(
    "conversions",
    metadata,
    Column("event_row_id", RowNumber, primary_key=True, autoincrement=False),
    Column("recommendation_id", Text, primary_key=True),  # '' = counts for no answer
    Column("owner_key", Text),  # whose event; null once it is past `events.retention_days`
    Column("item_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("event_at_us", Micros, nullable=False),
    Column("is_return", Boolean, nullable=False),
    Column("share", Float, nullable=False),  # those of one event add up to 1
    Column("value", Float, nullable=False),  # that share of the event's value; a return's subtracts
    Column("currency", Text, nullable=False),  # '' = none is known
    Column("via", Text, nullable=False),  # 'recommendation_id', 'shown', 'return' or 'none'
    Column("answered_at_us", Micros),  # null = counts for no answer, as rank
    Column("rank", Integer),  # of the item in the answer, from 1
    Column("source", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("arm", Text, nullable=False),
    Column("scenario", Text, nullable=False),
    # A page told of it, whose key anybody can read.
    Column("from_page", Boolean, nullable=False, server_default=false()),
)
Index("ix_conversions_event_time", conversions.c.event_at_us)
Index("ix_conversions_owner", conversions.c.owner_key)
Index("ix_conversions_item", conversions.c.item_id)
ATTRIBUTED = text("answered_at_us IS NOT NULL")
Index(
    "ix_conversions_answer_time",
    conversions.c.answered_at_us,
    postgresql_where=ATTRIBUTED,
    sqlite_where=ATTRIBUTED,
)
Index(
    "ix_conversions_answer",
    conversions.c.recommendation_id,
    postgresql_where=ATTRIBUTED,
    sqlite_where=ATTRIBUTED,
)

# Users and sessions whose conversions are to be attributed again, such as after a merge.
conversions_due = Table(
    "conversions_due",
    metadata,
    Column("owner_key", Text, primary_key=True),
)
