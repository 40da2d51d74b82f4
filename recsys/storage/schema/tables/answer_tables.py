"""Answers, clicks, and both counted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from recsys.storage.schema.tables.table_types import Micros, RowNumber, metadata, row_number

# What was answered, and later what was clicked of it.
impressions = Table(
    "impressions",
    metadata,
    row_number(),
    Column("recommendation_id", Text, nullable=False, unique=True),
    Column("created_at_us", Micros, nullable=False),
    Column("user_id", Text),
    Column("session_id", Text),
    Column("model_version", Text),
    Column("scenario", Text),
    Column("items", Text, nullable=False),  # JSON list of [item_id, source, score]
    Column("arm", Text),  # 'champion', 'control' or null
    Column("page_of", Text),  # the answer that this one goes on from
    Column("last_event_id", Text),
    Column("sequence_length", Integer),
    Column("reasons", Text),  # JSON object: item_id -> past events, where asked for
    Column("shown", Text),  # JSON list of the items really shown, where the caller said so
)
Index("ix_impressions_created", impressions.c.created_at_us)
Index(
    "ix_impressions_user",
    impressions.c.user_id,
    postgresql_where=impressions.c.user_id.is_not(None),
    sqlite_where=impressions.c.user_id.is_not(None),
)
Index(
    "ix_impressions_session",
    impressions.c.session_id,
    postgresql_where=impressions.c.session_id.is_not(None),
    sqlite_where=impressions.c.session_id.is_not(None),
)

# An event that carried a recommendation_id and was among its items; each event counts once.
attributed_clicks = Table(
    "attributed_clicks",
    metadata,
    Column("event_row_id", RowNumber, primary_key=True, autoincrement=False),
    Column("recommendation_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("attributed_at_us", Micros, nullable=False),
)
Index("ix_attributed_clicks_recommendation", attributed_clicks.c.recommendation_id)

# Impressions and clicks by hour of the answer; what reports read, however many answers there are.
answer_counts = Table(
    "answer_counts",
    metadata,
    Column("hour_us", Micros, primary_key=True),
    Column("model_version", Text, primary_key=True),  # '' = none
    Column("arm", Text, primary_key=True),  # '' = none
    Column("scenario", Text, primary_key=True),  # '' = none
    Column("source", Text, primary_key=True),  # '' = the answer as a whole
    Column("shown", BigInteger, nullable=False),  # items; of the answer as a whole: answers
    Column("clicks", BigInteger, nullable=False),
)
