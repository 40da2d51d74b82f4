"""Events, the quarantine, items, users, and who was merged or erased."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
    true,
)

from recsys.storage.schema.tables.table_types import BytewiseText, Micros, metadata, row_number

# In PostgreSQL partitioned by user_bucket, which its primary key therefore holds too: migration 0005.
events = Table(
    "events",
    metadata,
    row_number(),  # order of arrival: the source position of sequences
    Column("user_bucket", SmallInteger, nullable=False),
    Column("user_id", Text),
    Column("session_id", Text),
    Column("item_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("timestamp_us", Micros, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("value", Float),
    Column("recommendation_id", Text),
    Column("properties", Text),
    Column("received_at_us", Micros, nullable=False),
    Column("import_id", BigInteger),  # which file brought it; null: it was posted
    CheckConstraint("user_id IS NOT NULL OR session_id IS NOT NULL", name="has_owner"),
    sqlite_autoincrement=True,  # the number of a row that is gone is never given to another
)
# An event is unique by the key of its sequence and its id. The bucket stands first for PostgreSQL,
# whose partitions it chooses.
OWNER_KEY = "coalesce('u:' || user_id, 's:' || session_id)"
UNIQUE_BY = (events.c.user_bucket, events.c.event_id, text(OWNER_KEY))
Index("uq_events_owner_event_id", *UNIQUE_BY, unique=True)
Index(
    "ix_events_user",
    events.c.user_id,
    events.c.timestamp_us,
    events.c.id,
    postgresql_where=events.c.user_id.is_not(None),
    sqlite_where=events.c.user_id.is_not(None),
)
Index(
    "ix_events_session",
    events.c.session_id,
    events.c.timestamp_us,
    events.c.id,
    postgresql_where=events.c.session_id.is_not(None),
    sqlite_where=events.c.session_id.is_not(None),
)

# For windows and pruning. Events arrive nearly in order of time, which is what BRIN is for.
Index("ix_events_time", events.c.timestamp_us, postgresql_using="brin")

# For attribution: the few events that name the answer they came from.
Index(
    "ix_events_recommended",
    events.c.received_at_us,
    postgresql_where=events.c.recommendation_id.is_not(None),
    sqlite_where=events.c.recommendation_id.is_not(None),
)

# Feedback of Gorse clients: the rows whose event ids begin with `gorse:`. Listed by its key, and by item.
FEEDBACK = "substr(event_id, 1, 6) = 'gorse:'"
Index(
    "ix_events_feedback",
    events.c.event_type,
    events.c.user_id,
    events.c.item_id,
    postgresql_where=text(FEEDBACK),
    sqlite_where=text(FEEDBACK),
)
Index(
    "ix_events_feedback_item",
    events.c.item_id,
    events.c.user_id,
    postgresql_where=text(FEEDBACK),
    sqlite_where=text(FEEDBACK),
)

# Feedback whose time has not come: it enters the log of events when it has.
deferred_events = Table(
    "deferred_events",
    metadata,
    row_number(),
    Column("user_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("timestamp_us", Micros, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("value", Float),
    Column("properties", Text),
)
Index("ix_deferred_events_user", deferred_events.c.user_id, deferred_events.c.timestamp_us)
Index("ix_deferred_events_time", deferred_events.c.timestamp_us)

rejected_events = Table(
    "rejected_events",
    metadata,
    row_number(),
    Column("source", Text, nullable=False),  # a file's name without its folder, or 'rest'
    Column("position", BigInteger, nullable=False),  # row of the source, from 0
    Column("reason", Text, nullable=False),
    Column("raw", Text, nullable=False),  # the row as JSON
    Column("raw_hash", Text, nullable=False),
    Column("rejected_at_us", Micros, nullable=False),
    Column("replayed_at_us", Micros),
    Column("import_id", BigInteger),
    UniqueConstraint("source", "position", "raw_hash"),
)

# Names of tracked events that map to nothing here, by who sends them; a bounded number of each.
unmapped_names = Table(
    "unmapped_names",
    metadata,
    Column("source", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("first_seen_us", Micros, nullable=False),
    Column("last_seen_us", Micros, nullable=False),
)

# Files that were imported. All events of one lie within its span of rows, among those of others.
imports = Table(
    "imports",
    metadata,
    row_number(),
    Column("source", Text, nullable=False),  # the file's name without its folder
    Column("options", Text, nullable=False),  # how it was read: a JSON object
    Column("actor", Text, nullable=False),
    Column("started_at_us", Micros, nullable=False),
    Column("finished_at_us", Micros),  # null: it is under way, or was ended before its time
    Column("undone_at_us", Micros),
    Column("counts", Text, nullable=False, server_default=text("'{}'")),  # a JSON object
    Column("first_row", BigInteger, nullable=False),
    Column("last_row", BigInteger, nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("title", Text),
    Column("categories", Text, nullable=False, server_default=text("'[]'")),  # JSON list
    Column("price", Float),
    Column("image", Text),
    Column("available", Boolean, nullable=False, server_default=true()),
    Column("properties", Text, nullable=False, server_default=text("'{}'")),  # JSON object
    Column("created_at_us", Micros, nullable=False),
    Column("updated_at_us", Micros, nullable=False),
)
Index("ix_items_created", items.c.created_at_us)
Index("ix_items_updated", items.c.updated_at_us)
Index(
    "ix_items_unavailable",
    items.c.item_id,
    postgresql_where=text("NOT available"),
    sqlite_where=text("NOT available"),
)

item_categories = Table(
    "item_categories",
    metadata,
    Column("category", Text, primary_key=True),
    Column("item_id", Text, ForeignKey("items.item_id", ondelete="CASCADE"), primary_key=True),
)
Index("ix_item_categories_item", item_categories.c.item_id)

# What is known of users beside their events. None is of a user who was merged into another.
users = Table(
    "users",
    metadata,
    Column("user_id", BytewiseText, primary_key=True),
    Column("properties", Text, nullable=False, server_default=text("'{}'")),  # JSON object
    Column("created_at_us", Micros, nullable=False),
    Column("updated_at_us", Micros, nullable=False, server_default=text("0")),
)

aliases = Table(
    "aliases",
    metadata,
    Column("alias_key", Text, primary_key=True),  # 's:<session_id>' or 'u:<user_id>'
    Column("user_id", Text, nullable=False),
    Column("created_at_us", Micros, nullable=False),
)
Index("ix_aliases_user", aliases.c.user_id)

# Sequences that were erased, by the hash that sequence files know them by, for those files to follow.
removed_sequences = Table(
    "removed_sequences",
    metadata,
    row_number(),
    Column("sequence_hash", BigInteger, nullable=False),
    Column("removed_at_us", Micros, nullable=False),
)

# Single events that were removed, by their row, for those files to follow.
removed_events = Table(
    "removed_events",
    metadata,
    row_number(),
    Column("event_row", BigInteger, nullable=False),
    Column("removed_at_us", Micros, nullable=False),
)

# Who was erased: a keyed hash, so that nobody can be looked up without the key.
tombstones = Table(
    "tombstones",
    metadata,
    Column("user_hash", Text, primary_key=True),
    Column("erased_at_us", Micros, nullable=False),
)
