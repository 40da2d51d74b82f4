"""Tables of who may enter and who acts: keys, accounts, sessions, the audit log; runs, schedules, leases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from recsys.storage.schema.tables.table_types import Micros, RowNumber, metadata, row_number

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
