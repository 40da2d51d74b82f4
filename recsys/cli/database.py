"""recsys db upgrade | check"""

from __future__ import annotations

import typer

from recsys.cli.common import ConfigOption, JsonOption, settings_of, show

app = typer.Typer(name="db", help="The database's schema.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Create or update the tables; repeating it changes nothing.

    Example: recsys db upgrade
    """
    from recsys.storage import migrate
    from recsys.storage.database import open_database

    show({"revision": migrate.upgrade(open_database(settings_of(config)))}, as_json)


@app.command("check")
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whether the tables are those this release needs.

    Example: recsys db check
    """
    from recsys.storage import migrate
    from recsys.storage.database import open_database

    database = open_database(settings_of(config))
    migrate.check(database)
    show({"revision": migrate.current(database), "current": True}, as_json)
