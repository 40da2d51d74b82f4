"""Alembic's entry: runs the revisions on the database handed over by `recsys.storage.migrate`."""

from alembic import context

from recsys.storage.database import Database
from recsys.storage.tables import metadata

database: Database = context.config.attributes["database"]

with database.begin() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=database.dialect == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
