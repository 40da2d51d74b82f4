"""Feedback of Gorse clients: listed by its key and by item, some of it deferred, single events removed.

Both indexes hold events of such clients alone and cost others nothing but the building, which reads the
table of events once.

Revision 0012.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

FEEDBACK = "substr(event_id, 1, 6) = 'gorse:'"


def upgrade() -> None:
    row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "deferred_events",
        sa.Column("id", row_number, sa.Identity(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("timestamp_us", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("properties", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deferred_events")),
    )
    op.create_index("ix_deferred_events_user", "deferred_events", ["user_id", "timestamp_us"])
    op.create_index("ix_deferred_events_time", "deferred_events", ["timestamp_us"])
    op.create_table(
        "removed_events",
        sa.Column("id", row_number, sa.Identity(), nullable=False),
        sa.Column("event_row", sa.BigInteger(), nullable=False),
        sa.Column("removed_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removed_events")),
    )
    for name, columns in (
        ("ix_events_feedback", ["event_type", "user_id", "item_id"]),
        ("ix_events_feedback_item", ["item_id", "user_id"]),
    ):
        where = sa.text(FEEDBACK)
        op.create_index(name, "events", columns, postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    """Feedback whose time has not come is lost."""
    op.drop_index("ix_events_feedback_item", table_name="events")
    op.drop_index("ix_events_feedback", table_name="events")
    op.drop_table("removed_events")
    op.drop_table("deferred_events")
