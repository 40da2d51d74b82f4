"""Tables of answers and of the figures that the dashboard reads."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text, text

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
    Column("scenario_version", Integer),  # null: the scenario is a label alone
    # JSON list of [item_id, source, score], with the propensity behind them where the answer explored
    Column("items", Text, nullable=False),
    Column("arm", Text),  # 'champion', 'control', 'page' or null
    Column("page_of", Text),  # the answer that this one goes on from
    Column("last_event_id", Text),
    Column("sequence_length", Integer),
    Column("reasons", Text),  # JSON object: item_id -> past events, where asked for
    Column("shown", Text),  # JSON list of the items really shown, where the caller said so
    Column("experiments", Text),  # JSON object: experiment -> arm, of those it counts in
)
Index("ix_impressions_created", impressions.c.created_at_us)
Index(
    "ix_impressions_user",
    impressions.c.user_id,
    impressions.c.created_at_us,
    postgresql_where=impressions.c.user_id.is_not(None),
    sqlite_where=impressions.c.user_id.is_not(None),
)
Index(
    "ix_impressions_session",
    impressions.c.session_id,
    impressions.c.created_at_us,
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


# The one row says how often each kind of thing has changed. What a process holds in memory is held
# under these numbers, so that a change is seen by the next request of any process.
stamps = Table(
    "stamps",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    *(
        Column(name, BigInteger, nullable=False, server_default=text("0"))
        for name in (
            *("items", "keys", "deployments", "aliases", "tombstones", "followers"),
            *("scenarios", "experiments"),
        )
    ),
)

# Random values this installation made for itself.
installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# Events by the hour they happened in, counted by the refresh job.
event_counts = Table(
    "event_counts",
    metadata,
    Column("hour_us", Micros, primary_key=True),
    Column("event_type", Text, primary_key=True),
    Column("events", BigInteger, nullable=False),
)

active_users = Table(
    "active_users",
    metadata,
    Column("day_us", Micros, primary_key=True, autoincrement=False),
    Column("users", BigInteger, nullable=False),
)

# What the service did, added up by its workers every few seconds.
service_counts = Table(
    "service_counts",
    metadata,
    Column("span_seconds", Integer, primary_key=True),  # 300 (kept for two days), 3600 or 86400
    Column("slot_us", Micros, primary_key=True),
    Column(
        "kind", Text, primary_key=True
    ),  # 'latency', 'status', 'source', 'fallback', 'lag', 'key', 'posted'
    Column("name", Text, primary_key=True),
    Column("bucket", Float, primary_key=True),  # upper bound of a histogram's bucket; 0 = none
    Column("number", BigInteger, nullable=False),
)

# How large things were at the end of each day, measured by the refresh job.
storage_sizes = Table(
    "storage_sizes",
    metadata,
    Column("day_us", Micros, primary_key=True, autoincrement=False),
    Column("database_bytes", BigInteger, nullable=False),
    Column("registry_bytes", BigInteger, nullable=False),
    Column("free_bytes", BigInteger),  # where the registry is; NULL = not known
)

# What the refresh job found of the events' quality: of each day, its last look.
quality_reports = Table(
    "quality_reports",
    metadata,
    Column("day_us", Micros, primary_key=True, autoincrement=False),
    Column("made_at_us", Micros, nullable=False),
    Column("facts", Text, nullable=False),  # JSON object
)

# What would have been answered just before each click: sums over a sample of each hour's positions.
live_quality = Table(
    "live_quality",
    metadata,
    Column("hour_us", Micros, primary_key=True, autoincrement=False),
    Column("positions", Integer, nullable=False),
    Column("unknown", Integer, nullable=False),  # of them, with a target that no training had seen
    # Targets among the first 20, and the sum of 1/rank of those.
    Column("live_hits", Integer, nullable=False),
    Column("live_reciprocals", Float, nullable=False),
    Column("still_hits", Integer, nullable=False),
    Column("still_reciprocals", Float, nullable=False),
    Column("popular_hits", Integer, nullable=False),
    Column("popular_reciprocals", Float, nullable=False),
)
