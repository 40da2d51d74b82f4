"""When a user's attributes changed; users are ordered by the bytes of their ids, as pages list them.

Revision 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    changed = sa.Column(
        "updated_at_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False
    )
    op.add_column("users", changed)
    op.execute("UPDATE users SET updated_at_us = created_at_us")
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE users ALTER COLUMN user_id TYPE TEXT COLLATE "C"')


def downgrade() -> None:
    op.drop_column("users", "updated_at_us")
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE users ALTER COLUMN user_id TYPE TEXT COLLATE "default"')
