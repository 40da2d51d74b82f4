"""Scenarios, their versions, and which version gave an answer.

Revision 0014.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scenarios",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_scenarios")),
    )
    op.create_table(
        "scenario_versions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_scenario_versions")),
    )
    stamp = sa.Column("scenarios", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("stamps", stamp)
    op.add_column("impressions", sa.Column("scenario_version", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("impressions", "scenario_version")
    op.drop_column("stamps", "scenarios")
    op.drop_table("scenario_versions")
    op.drop_table("scenarios")
