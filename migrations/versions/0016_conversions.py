"""Conversions and returns by the answers they count for, and whose are to be attributed again.

Revision 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "conversions",
        sa.Column("event_row_id", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("recommendation_id", sa.Text(), nullable=False),
        sa.Column("owner_key", sa.Text(), nullable=True),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("event_at_us", sa.BigInteger(), nullable=False),
        sa.Column("is_return", sa.Boolean(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("answered_at_us", sa.BigInteger(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("scenario", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_row_id", "recommendation_id", name=op.f("pk_conversions")),
    )
    op.create_index("ix_conversions_event_time", "conversions", ["event_at_us"])
    op.create_index("ix_conversions_owner", "conversions", ["owner_key"])
    op.create_index("ix_conversions_item", "conversions", ["item_id"])
    attributed = sa.text("answered_at_us IS NOT NULL")
    for name, column in (
        ("ix_conversions_answer_time", "answered_at_us"),
        ("ix_conversions_answer", "recommendation_id"),
    ):
        op.create_index(
            name,
            "conversions",
            [column],
            postgresql_where=attributed,
            sqlite_where=attributed,
        )
    op.create_table(
        "conversions_due",
        sa.Column("owner_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("owner_key", name=op.f("pk_conversions_due")),
    )


def downgrade() -> None:
    op.drop_table("conversions_due")
    op.drop_table("conversions")
