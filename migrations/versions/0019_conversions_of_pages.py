"""Conversions that a page told of, whose key anybody can read, told apart.

Revision 0019.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "conversions",
        sa.Column("from_page", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.execute(
        "UPDATE conversions SET from_page = true WHERE event_row_id IN "
        "(SELECT id FROM events WHERE event_id LIKE 'from-page:%')"
    )


def downgrade() -> None:
    op.drop_column("conversions", "from_page")
