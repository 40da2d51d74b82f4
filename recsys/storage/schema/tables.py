"""All tables. Times are whole microseconds since 1970 UTC in a BIGINT: exact, and the same in both
databases; such a column's name ends in `_us`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Micros = BigInteger
# SQLite numbers rows by itself only in a column declared INTEGER.
RowNumber = BigInteger().with_variant(Integer, "sqlite")


def row_number() -> Column[int]:
    return Column("id", RowNumber, Identity(), primary_key=True)


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
    CheckConstraint("user_id IS NOT NULL OR session_id IS NOT NULL", name="has_owner"),
    UniqueConstraint("user_bucket", "event_id"),
)
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
    UniqueConstraint("source", "position", "raw_hash"),
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

users = Table(
    "users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("properties", Text, nullable=False, server_default=text("'{}'")),
    Column("created_at_us", Micros, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("alias_key", Text, primary_key=True),  # 's:<session_id>' or 'u:<user_id>'
    Column("user_id", Text, nullable=False),
    Column("created_at_us", Micros, nullable=False),
)
Index("ix_aliases_user", aliases.c.user_id)

job_runs = Table(
    "job_runs",
    metadata,
    row_number(),
    Column("job", Text, nullable=False),
    Column("scheduled_at_us", Micros),
    Column("requested_by", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_at_us", Micros, nullable=False),
    Column("started_at_us", Micros),
    Column("heartbeat_at_us", Micros),
    Column("finished_at_us", Micros),
    Column("pid", Integer),
    Column("host", Text),
    Column("stage", Text),
    Column("progress", Float),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("options", Text, nullable=False, server_default=text("'{}'")),
    Column("outcome", Text),  # JSON object
    Column("error", Text),
    Column("fencing_token", BigInteger),  # of the leader that launched it
    Column("resources", Text),  # JSON object: what it took
    CheckConstraint(
        "requested_by IN ('schedule', 'cli', 'rest', 'dashboard')", name="requested_by"
    ),
    CheckConstraint(
        "state IN ('requested', 'running', 'succeeded', 'failed', 'cancelled', 'timed_out')",
        name="state",
    ),
    UniqueConstraint("job", "scheduled_at_us"),  # a slot is claimed once
)
Index("ix_job_runs_state", job_runs.c.state, job_runs.c.id)

job_run_lines = Table(
    "job_run_lines",
    metadata,
    Column("run_id", RowNumber, ForeignKey("job_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("line_number", Integer, primary_key=True),
    Column("at_us", Micros, nullable=False),
    Column("message", Text, nullable=False),
)

job_schedules = Table(
    "job_schedules",
    metadata,
    Column("job", Text, primary_key=True),
    Column("trigger", Text, nullable=False),
    Column("next_run_us", Micros),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("updated_at_us", Micros, nullable=False),
    Column("created_at_us", Micros),  # slots before it were never due
)

# Sequences that were erased, by the hash that sequence files know them by, for those files to follow.
removed_sequences = Table(
    "removed_sequences",
    metadata,
    row_number(),
    Column("sequence_hash", BigInteger, nullable=False),
    Column("removed_at_us", Micros, nullable=False),
)

# Who leads. `token` grows with each change of hands, `beats` while one hand holds it: whoever sees
# both stand still for the lease's length may take it, whatever the clocks of the machines say.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text),  # NULL = free
    Column("token", BigInteger, nullable=False, server_default=text("0")),
    Column("beats", BigInteger, nullable=False, server_default=text("0")),
    Column("renewed_at_us", Micros),  # for people; nothing is decided by it
)

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

# Steps since the last training from or to items that the champion does not know; made anew whole.
followers = Table(
    "followers",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("next_item_id", Text, primary_key=True),
    Column("share", Float, nullable=False),  # of all recent steps from the item
)

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

# Who was erased: a keyed hash, so that nobody can be looked up without the key.
tombstones = Table(
    "tombstones",
    metadata,
    Column("user_hash", Text, primary_key=True),
    Column("erased_at_us", Micros, nullable=False),
)

# Random values this installation made for itself.
installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("secret_sha256", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # comma separated
    Column("allowed_origins", Text, nullable=False, server_default=text("''")),
    Column("created_at_us", Micros, nullable=False),
    Column("revoked_at_us", Micros),
)

# Who may use the dashboard.
accounts = Table(
    "accounts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at_us", Micros, nullable=False),
    Column("disabled_at_us", Micros),
    CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),
)

# Who is logged in: of the cookie only a hash is kept.
admin_sessions = Table(
    "admin_sessions",
    metadata,
    Column("token_sha256", Text, primary_key=True),
    Column(
        "account", Text, ForeignKey("accounts.name", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("created_at_us", Micros, nullable=False),
    Column("seen_at_us", Micros, nullable=False),
    Column("address", Text),
    Column("flash", Text),  # JSON [kind, message], shown once by the next page
)

# Attempts to log in that failed or are under way, by account and by address.
login_failures = Table(
    "login_failures",
    metadata,
    Column("subject", Text, primary_key=True),  # 'account:<hash>' or 'address:<hash>'
    Column("failures", Integer, nullable=False),
    Column("first_at_us", Micros, nullable=False),
)

# What was changed by whom. Append only.
audit_log = Table(
    "audit_log",
    metadata,
    row_number(),
    Column("at_us", Micros, nullable=False),
    Column("actor", Text, nullable=False),  # an account, 'key <key_id>' or 'cli'
    Column("role", Text, nullable=False),  # of the account; 'key', 'cli'
    Column("action", Text, nullable=False),  # such as 'model.promote'
    Column("subject", Text, nullable=False),
    Column("details", Text, nullable=False, server_default=text("'{}'")),  # JSON object
    Column("request_id", Text),
    Column("address", Text),
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
