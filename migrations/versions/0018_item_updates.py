"""Items by when they were updated last, for those who keep columns of the catalogue in memory.

Revision 0018.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_items_updated", "items", ["updated_at_us"])


def downgrade() -> None:
    op.drop_index("ix_items_updated", "items")
