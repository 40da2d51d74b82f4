"""An event is unique by its owner and its id, and every import of a file is a row that owns its events.

Before, an id was unique within the owner's bucket, one of 64: two users' events of one id were taken
for the same by luck of a hash. All rows stay. SQLite cannot drop a constraint and copies the table,
under the same row ids; the disk holds it twice meanwhile. PostgreSQL builds an index anew. Programs
of an older release cannot post until they are restarted as this one.

Going back, a second event of a bucket's id keeps its place under an id of its own (`<id>~<row>`), so
that a retry of it would be stored once more; which rows came with which import is forgotten.

Revision 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = (
    "id, user_bucket, user_id, session_id, item_id, event_type, timestamp_us, event_id, value, "
    "recommendation_id, properties, received_at_us"
)
OWNER = "coalesce('u:' || user_id, 's:' || session_id)"
OLD_UNIQUE = "CONSTRAINT uq_events_user_bucket_event_id UNIQUE (user_bucket, event_id)"


def upgrade() -> None:
    row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "imports",
        sa.Column("id", row_number, sa.Identity(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("finished_at_us", sa.BigInteger(), nullable=True),
        sa.Column("undone_at_us", sa.BigInteger(), nullable=True),
        sa.Column("counts", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.Column("last_row", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.add_column("rejected_events", sa.Column("import_id", sa.BigInteger(), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        _copy_in_sqlite("INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "import_id BIGINT")
    else:
        op.execute("ALTER TABLE events DROP CONSTRAINT uq_events_user_bucket_event_id")
        op.add_column("events", sa.Column("import_id", sa.BigInteger(), nullable=True))
    op.execute(
        f"CREATE UNIQUE INDEX uq_events_owner_event_id ON events (user_bucket, event_id, ({OWNER}))"
    )


def downgrade() -> None:
    op.execute("DROP INDEX uq_events_owner_event_id")
    op.execute("""
        UPDATE events SET event_id = event_id || '~' || id WHERE id IN (
            SELECT id FROM (
                SELECT id, row_number() OVER (
                    PARTITION BY user_bucket, event_id ORDER BY id) AS occurrence
                FROM events
            ) AS numbered WHERE occurrence > 1
        )
    """)
    if op.get_bind().dialect.name == "sqlite":
        _copy_in_sqlite("INTEGER NOT NULL CONSTRAINT pk_events PRIMARY KEY", OLD_UNIQUE)
    else:
        op.drop_column("events", "import_id")
        op.execute(f"ALTER TABLE events ADD {OLD_UNIQUE}")
    op.drop_column("rejected_events", "import_id")
    op.drop_table("imports")


def _copy_in_sqlite(row_number: str, last: str) -> None:
    """The table of events anew, with `last` for its last column or constraint; rows keep their ids."""
    bind = op.get_bind()
    op.execute(f"""
        CREATE TABLE events_moving (
            id {row_number}, user_bucket SMALLINT NOT NULL,
            user_id TEXT, session_id TEXT, item_id TEXT NOT NULL, event_type TEXT NOT NULL,
            timestamp_us BIGINT NOT NULL, event_id TEXT NOT NULL, value FLOAT,
            recommendation_id TEXT, properties TEXT, received_at_us BIGINT NOT NULL, {last},
            CONSTRAINT ck_events_has_owner CHECK (user_id IS NOT NULL OR session_id IS NOT NULL)
        )
    """)
    moved = bind.execute(
        sa.text(f"INSERT INTO events_moving ({COLUMNS}) SELECT {COLUMNS} FROM events ORDER BY id")  # noqa: S608
    ).rowcount
    kept = bind.execute(sa.text("SELECT count(*) FROM events")).scalar_one()
    if moved != kept:
        raise RuntimeError(f"{kept} events were there, {moved} were moved; nothing is changed")
    op.execute("DROP TABLE events")
    op.execute("PRAGMA legacy_alter_table = ON")  # a view of somebody's may name the table
    op.execute("ALTER TABLE events_moving RENAME TO events")
    op.execute("PRAGMA legacy_alter_table = OFF")
    for name in ("user", "session"):
        op.execute(
            f"CREATE INDEX ix_events_{name} ON events ({name}_id, timestamp_us, id) "
            f"WHERE {name}_id IS NOT NULL"
        )
    op.execute("CREATE INDEX ix_events_time ON events (timestamp_us)")
    op.execute(
        "CREATE INDEX ix_events_recommended ON events (received_at_us) "
        "WHERE recommendation_id IS NOT NULL"
    )
