"""What would have been answered just before each click, a row an hour.

Revision 0009.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "live_quality",
        sa.Column("hour_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("positions", sa.Integer(), nullable=False),
        sa.Column("unknown", sa.Integer(), nullable=False),
        sa.Column("live_hits", sa.Integer(), nullable=False),
        sa.Column("live_reciprocals", sa.Float(), nullable=False),
        sa.Column("still_hits", sa.Integer(), nullable=False),
        sa.Column("still_reciprocals", sa.Float(), nullable=False),
        sa.Column("popular_hits", sa.Integer(), nullable=False),
        sa.Column("popular_reciprocals", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("hour_us", name=op.f("pk_live_quality")),
    )


def downgrade() -> None:
    op.drop_table("live_quality")
