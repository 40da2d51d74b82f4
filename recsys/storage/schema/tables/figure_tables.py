"""What the dashboard shows without counting, and what the installation keeps of itself."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, Table, Text, text

from recsys.storage.schema.tables.table_types import Micros, metadata

# The one row says how often each kind of thing has changed. What a process holds in memory is held
# under these numbers, so that a change is seen by the next request of any process.
stamps = Table(
    "stamps",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    *(
        Column(name, BigInteger, nullable=False, server_default=text("0"))
        for name in ("items", "keys", "deployments", "aliases", "tombstones", "followers")
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
