"""Model versions, their files and deployments, and followers of items they do not know."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
)

from recsys.storage.schema.tables.table_types import Micros, RowNumber, metadata, row_number

model_versions = Table(
    "model_versions",
    metadata,
    Column("version", Text, primary_key=True),
    Column("created_at_us", Micros, nullable=False),
    Column("state", Text, nullable=False),
    Column("ranking", Text, nullable=False),
    Column("data_start_us", Micros, nullable=False),
    Column("data_end_us", Micros, nullable=False),  # the newest event it has learned
    Column("event_count", BigInteger, nullable=False),
    Column("user_count", BigInteger, nullable=False),
    Column("item_count", BigInteger, nullable=False),
    Column("facts", Text, nullable=False),  # JSON: settings, learning curve, metrics
    Column("verdict", Text, nullable=False),  # JSON: promote, reason, numbers
    Column("manifest_sha256", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("run_id", RowNumber, ForeignKey("job_runs.id", ondelete="SET NULL")),
    CheckConstraint("state IN ('candidate', 'refused', 'promoted', 'deleted')", name="state"),
)
Index("ix_model_versions_created", model_versions.c.created_at_us)

# Files of versions in parts, where registry.store says so. They come before their version's row, and
# are checked by the hashes that it vouches for.
model_files = Table(
    "model_files",
    metadata,
    Column("version", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
    Column("created_at_us", Micros, nullable=False),
)

# Append only. The newest row says which version is the champion; a roll back is a new row.
deployments = Table(
    "deployments",
    metadata,
    row_number(),
    Column("version", Text, ForeignKey("model_versions.version"), nullable=False),
    Column("deployed_at_us", Micros, nullable=False),
    Column("deployed_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

# Steps since the last training from or to items that the champion does not know; made anew whole.
followers = Table(
    "followers",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("next_item_id", Text, primary_key=True),
    Column("share", Float, nullable=False),  # of all recent steps from the item
)
