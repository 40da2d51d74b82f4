"""Alembic's entry: runs the revisions on the database handed over by `recsys.storage.schema.migrate`, or in a
transaction that is already there.
"""

from alembic import context
from sqlalchemy import Connection

from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Database
from recsys.storage.schema import downgrades
from recsys.storage.schema.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
        downgrades.record(connection)


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    database: Database = context.config.attributes["database"]
    with database.begin() as own:
        advisory_lock.take_turns(own, "schema")  # two programs may be started at once
        run(own)
