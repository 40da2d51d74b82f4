"""One leader among the schedulers, what a run took, and erased sequences.

Revision 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("beats", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("renewed_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "removed_sequences",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("sequence_hash", sa.BigInteger(), nullable=False),
        sa.Column("removed_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removed_sequences")),
    )
    op.add_column("job_runs", sa.Column("fencing_token", sa.BigInteger(), nullable=True))
    op.add_column("job_schedules", sa.Column("created_at_us", sa.BigInteger(), nullable=True))
    op.add_column("job_runs", sa.Column("resources", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("job_schedules", "created_at_us")
    for name in ("resources", "fencing_token"):
        op.drop_column("job_runs", name)
    op.drop_table("removed_sequences")
    op.drop_table("leases")
