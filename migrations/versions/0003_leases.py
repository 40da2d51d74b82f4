"""One leader among the schedulers, and what a run took.

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
    op.add_column("job_runs", sa.Column("fencing_token", sa.BigInteger(), nullable=True))
    op.add_column("job_schedules", sa.Column("created_at_us", sa.BigInteger(), nullable=True))
    op.add_column("job_runs", sa.Column("resources", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("job_schedules", "created_at_us")
    for name in ("resources", "fencing_token"):
        op.drop_column("job_runs", name)
    op.drop_table("leases")
