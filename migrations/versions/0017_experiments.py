"""Experiments: what is tried, who was in which arm, and what came of it.

Revision 0017.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

SUMS = (
    "answers",
    "answers2",
    "clicks",
    "clicks2",
    "answers_clicks",
    "conversions",
    "value",
    "value2",
)


def _name(column: str) -> "sa.Column[str]":
    """Part of a key: ordered by its bytes in both databases."""
    return sa.Column(
        column, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False
    )


def _count(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)


def upgrade() -> None:
    row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "experiments",
        _name("name"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("buckets", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=True),
        sa.Column("stopped_at_us", sa.BigInteger(), nullable=True),
        sa.Column("promoted", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_experiments")),
    )
    op.create_table(
        "experiment_testers",
        _name("experiment"),
        _name("unit"),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "unit", name=op.f("pk_experiment_testers")),
    )
    op.create_index("ix_experiment_testers_unit", "experiment_testers", ["unit"])
    op.create_table(
        "experiment_units",
        _name("experiment"),
        _name("unit"),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("first_at_us", sa.BigInteger(), nullable=False),
        _count("answers"),
        _count("clicks"),
        _count("conversions"),
        sa.Column("value", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "unit", name=op.f("pk_experiment_units")),
    )
    op.create_index("ix_experiment_units_unit", "experiment_units", ["unit"])
    op.create_table(
        "experiment_outcomes",
        sa.Column("event_row_id", row_number, autoincrement=False, nullable=False),
        _name("experiment"),
        _name("unit"),
        sa.Column("conversions", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("event_row_id", "experiment", name=op.f("pk_experiment_outcomes")),
    )
    op.create_index("ix_experiment_outcomes_unit", "experiment_outcomes", ["unit"])
    op.create_table(
        "experiment_looks",
        _name("experiment"),
        sa.Column("hour_us", sa.BigInteger(), autoincrement=False, nullable=False),
        _name("arm"),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("units", "converted")),
        *(sa.Column(name, sa.Float(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("experiment", "hour_us", "arm", name=op.f("pk_experiment_looks")),
    )
    op.create_table(
        "shadow_answers",
        _name("recommendation_id"),
        _name("experiment"),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("items", sa.Text(), nullable=False),
        sa.Column("overlap", sa.Float(), nullable=False),
        sa.Column("milliseconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("recommendation_id", "experiment", name=op.f("pk_shadow_answers")),
    )
    op.create_index(
        "ix_shadow_answers_experiment", "shadow_answers", ["experiment", "created_at_us"]
    )
    op.add_column("impressions", sa.Column("experiments", sa.Text(), nullable=True))
    op.add_column("stamps", _count("experiments"))


def downgrade() -> None:
    op.drop_column("stamps", "experiments")
    op.drop_column("impressions", "experiments")
    for name in ("shadow_answers", "experiment_looks", "experiment_outcomes", "experiment_units"):
        op.drop_table(name)
    op.drop_table("experiment_testers")
    op.drop_table("experiments")
