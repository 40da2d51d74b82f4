"""How far each partition of a stream has been read, and who reads it.

Revision 0013.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def _count(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "stream_partitions",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Text(), nullable=True),
        sa.Column("consumer", sa.Text(), nullable=True),
        _count("token"),
        _count("messages"),
        _count("read"),
        _count("accepted"),
        _count("duplicates"),
        _count("rejected"),
        _count("left_out"),
        _count("missed"),
        sa.Column("lag", sa.BigInteger(), nullable=True),
        sa.Column("last_message_at_us", sa.BigInteger(), nullable=True),
        sa.Column("reported_at_us", sa.BigInteger(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("source", "topic", "partition", name=op.f("pk_stream_partitions")),
    )
    op.create_table(
        "stream_consumers",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topics", sa.Text(), nullable=False),
        _count("beats"),
        sa.Column("joined_at_us", sa.BigInteger(), nullable=False),
        sa.Column("renewed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("source", "consumer", name=op.f("pk_stream_consumers")),
    )


def downgrade() -> None:
    op.drop_table("stream_consumers")
    op.drop_table("stream_partitions")
