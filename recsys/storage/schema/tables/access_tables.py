"""API keys, accounts, sessions and the audit log."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, Table, Text, text

from recsys.storage.schema.tables.table_types import Micros, metadata, row_number

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
