"""recsys db upgrade | check | downgrade"""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, settings_of, show

app = typer.Typer(name="db", help="The database's schema.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Create or update the tables; safe to run again.

    Example: recsys db upgrade
    """
    from recsys.storage.engine.database import open_database
    from recsys.storage.schema import migrate

    show({"revision": migrate.upgrade(open_database(settings_of(config)))}, as_json)


@app.command("check")
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check whether the tables match this release.

    Example: recsys db check
    """
    from recsys.storage.engine.database import open_database
    from recsys.storage.schema import migrate

    database = open_database(settings_of(config))
    migrate.check(database)
    show({"revision": migrate.current(database), "current": True}, as_json)


@app.command("downgrade")
def downgrade(
    revision: Annotated[
        str,
        typer.Argument(help="The revision to go back to, such as 0003; base removes all tables."),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this option nothing is changed.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what going back to an older schema would lose; do it with --yes.

    Run it with the release that made the schema, service and scheduler stopped, and install the
    older release afterwards. `recsys restore --replace` of a backup is the way that loses no table.

    Example: recsys db downgrade 0003
    """
    from recsys.storage.engine.database import open_database
    from recsys.storage.schema import downgrades, migrate

    with closing(open_database(settings_of(config))) as database:
        lost = downgrades.losses(database, revision)
        if yes:
            migrate.downgrade(database, revision)
    lines = [f"from {lost.before} to {revision}"]
    lines += [f"  {rows:>12,} rows of table {name}" for name, rows in lost.tables.items()]
    lines += [f"  {rows:>12,} values of column {name}" for name, rows in lost.columns.items()]
    if not lost.tables and not lost.columns:
        lines.append("  no table or column is lost")
    lines.append("done" if yes else "nothing was changed; add --yes to do it")
    show({**vars(lost), "revision": revision, "done": yes}, as_json, "\n".join(lines))
