"""The newest answers to a user or session are found by one index each, which rotation reads.

Revision 0015.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def _index(owner: str, *more: str) -> None:
    name = f"ix_impressions_{owner.removesuffix('_id')}"
    op.drop_index(name, table_name="impressions")
    given = sa.text(f"{owner} IS NOT NULL")
    op.create_index(
        name,
        "impressions",
        [owner, *more],
        unique=False,
        postgresql_where=given,
        sqlite_where=given,
    )


def upgrade() -> None:
    _index("user_id", "created_at_us")
    _index("session_id", "created_at_us")


def downgrade() -> None:
    _index("session_id")
    _index("user_id")
