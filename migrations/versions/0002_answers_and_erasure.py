"""Answers, what was clicked of them, new items' followers, erasure, and stamps.

Revision 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STAMPS = ("items", "keys", "deployments", "aliases", "tombstones", "followers")
NEW_COLUMNS = (
    ("arm", sa.Text()),
    ("page_of", sa.Text()),
    ("last_event_id", sa.Text()),
    ("sequence_length", sa.Integer()),
    ("reasons", sa.Text()),
    ("shown", sa.Text()),
)


def upgrade() -> None:
    stamps = op.create_table(
        "stamps",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
            for name in STAMPS
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stamps")),
    )
    op.bulk_insert(stamps, [{"id": 1}])
    for name, kind in NEW_COLUMNS:
        op.add_column("impressions", sa.Column(name, kind, nullable=True))
    for name in ("user_id", "session_id"):
        op.create_index(
            f"ix_impressions_{name.removesuffix('_id')}",
            "impressions",
            [name],
            unique=False,
            postgresql_where=sa.text(f"{name} IS NOT NULL"),
            sqlite_where=sa.text(f"{name} IS NOT NULL"),
        )
    op.create_index(
        "ix_events_recommended",
        "events",
        ["received_at_us"],
        unique=False,
        postgresql_where=sa.text("recommendation_id IS NOT NULL"),
        sqlite_where=sa.text("recommendation_id IS NOT NULL"),
    )
    op.create_table(
        "attributed_clicks",
        sa.Column(
            "event_row_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("recommendation_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("attributed_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_row_id", name=op.f("pk_attributed_clicks")),
    )
    op.create_index(
        "ix_attributed_clicks_recommendation",
        "attributed_clicks",
        ["recommendation_id"],
        unique=False,
    )
    op.create_table(
        "answer_counts",
        sa.Column("hour_us", sa.BigInteger(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("scenario", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("shown", sa.BigInteger(), nullable=False),
        sa.Column("clicks", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "hour_us",
            "model_version",
            "arm",
            "scenario",
            "source",
            name=op.f("pk_answer_counts"),
        ),
    )
    op.create_table(
        "followers",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("next_item_id", sa.Text(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "next_item_id", name=op.f("pk_followers")),
    )
    op.create_table(
        "tombstones",
        sa.Column("user_hash", sa.Text(), nullable=False),
        sa.Column("erased_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_hash", name=op.f("pk_tombstones")),
    )
    op.create_table(
        "installation",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
    )


def downgrade() -> None:
    for table in (
        *("installation", "tombstones", "followers"),
        *("answer_counts", "attributed_clicks"),
    ):
        op.drop_table(table)
    op.drop_index("ix_events_recommended", table_name="events")
    for name in ("user", "session"):
        op.drop_index(f"ix_impressions_{name}", table_name="impressions")
    for name, _ in reversed(NEW_COLUMNS):
        op.drop_column("impressions", name)
    op.drop_table("stamps")
