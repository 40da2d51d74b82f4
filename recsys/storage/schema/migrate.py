"""Schema up, down and checked, from the checkout's migrations/ or those inside an installed wheel."""

from __future__ import annotations

import warnings
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from recsys.errors import RecsysError
from recsys.storage.engine.database import Connection, Database
from recsys.storage.schema.tables import metadata

PACKAGE = Path(__file__).parents[2]


def migrations_folder() -> Path:
    """Where the numbered revisions are."""
    installed = PACKAGE / "_migrations"
    return installed if installed.is_dir() else PACKAGE.parent / "migrations"


def alembic_config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["database"] = database
    return config


def upgrade(database: Database, revision: str = "head") -> str | None:
    """Bring the schema to `revision`; the revision it has then.

    Raises RecsysError where it is of a newer release: going back would drop what that one added.
    """
    database.make_folder()
    refuse_newer(current(database))
    command.upgrade(alembic_config(database), revision)
    return current(database)


def downgrade(database: Database, revision: str) -> None:
    """Take the schema back to `revision` ('base' removes every table), in one transaction."""
    command.downgrade(alembic_config(database), revision)


def revision_of(connection: Connection) -> str | None:
    """The revision as the transaction at hand sees it, or None where there is no schema."""
    return MigrationContext.configure(connection).get_current_revision()


def move(connection: Connection, revision: str) -> None:
    """In the transaction at hand: the schema forward to `revision`, or away where it is 'base'."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    (command.downgrade if revision == "base" else command.upgrade)(config, revision)


def knows(revision: str) -> bool:
    """Whether this release has a migration of that name."""
    return any(script.revision == revision for script in _scripts().walk_revisions())


def current(database: Database) -> str | None:
    """The schema's revision, or None where there is none."""
    with database.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str | None:
    """The newest revision this release knows."""
    return _scripts().get_current_head()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(migrations_folder())


def check(database: Database) -> None:
    """Raises RecsysError where the schema is not the one this release works with."""
    found, wanted = current(database), head()
    refuse_newer(found)
    if found != wanted:
        has = f"is at revision {found}" if found else "has no tables"
        raise RecsysError(
            f"the database {has}, this release needs {wanted}; run: recsys db upgrade"
        )


def older(revision: str | None) -> list[str]:
    """The revisions before `revision`, newest first."""
    if revision is None:
        return []
    return [script.revision for script in _scripts().walk_revisions("base", revision)][1:]


def refuse_newer(revision: str | None) -> None:
    """Raise RecsysError where the schema is of a release after this one."""
    if revision is not None and not knows(revision):
        raise RecsysError(
            f"the database is at revision {revision}, of a newer release; install that one, or "
            "restore a backup made before its upgrade: recsys restore PATH --replace"
        )


def differences(database: Database) -> list[object]:
    """What autogenerate would still change; empty where tables.py and the migrations agree."""
    with database.connect() as connection, warnings.catch_warnings():
        # SQLite's own listing leaves out an index on an expression; its tables are checked by use.
        warnings.filterwarnings("ignore", message=".*expression-based index")
        opts = {"compare_type": True, "include_name": _is_no_partition}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, metadata))


def is_partition(name: str) -> bool:
    """Whether a table is a partition of the events, made by their migration and none of its own."""
    return name.startswith("events_p")


def _is_no_partition(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or not is_partition(name or "")
