"""recsys backup | restore"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, now, progress_bar, say, settings_of, show


def register(app: typer.Typer) -> None:
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    path: Annotated[Path, typer.Argument(help="The file to write, or an existing folder.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify an existing backup instead.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up the database and models into one file while the service keeps running.

    What is written into a folder is named by the time; without the folder, PATH is the file.

    Example: recsys backup /var/backups/recsys.zip
    """
    from recsys.ops.backup import make_backup, verify_backup
    from recsys.storage.engine.database import open_database

    settings = settings_of(config)
    if verify:
        show({"path": str(path), "whole": True, **verify_backup(path).plain()}, as_json)
        return
    database = open_database(settings)
    with closing(database), progress_bar("backup", 1.0) as (progress, task):
        written, made = make_backup(
            settings,
            database,
            path,
            now(),
            lambda stage, share: progress.update(task, completed=share, note=stage),
        )
    for version, reason in made.left_out.items():
        say(f"left out: {version}: {reason}")
    show({"path": str(written), **made.plain()}, as_json)


def restore(
    path: Annotated[Path, typer.Argument(help="The backup.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace the existing data.")] = False,
    revoke_keys: Annotated[
        bool, typer.Option("--revoke-keys", help="Revoke every API key in the backup.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore the database and models of a backup; stop the service and the scheduler first.

    The configured database may be of the other kind than the backup's. Keys that were revoked, accounts
    that were closed and users who were erased in the database since stay so. Everybody logs in again.

    Example: recsys restore /var/backups/recsys/recsys-20250131-093000.zip
    """
    from recsys.ops.backup import restore_backup
    from recsys.storage.engine.database import open_database

    settings = settings_of(config)
    with closing(open_database(settings)) as database:
        found, carried = restore_backup(
            settings, database, path, now(), replace=replace, revoke_keys=revoke_keys, say=say
        )
    for key in carried.active_keys:
        say(f"active key: {key['key_id']} {key['name']} ({', '.join(key['scopes'])})")
    if carried.erasures_unknown:
        say(
            f"{carried.erasures_unknown} users were erased here under another installation's key; "
            "whoever of them the backup holds is back: erase them again"
        )
    if not carried.active_admins:
        say("the dashboard has no admin account; run: recsys admin create NAME --role admin")
    show({"path": str(path), "restored": True, **found.plain(), **carried.plain()}, as_json)
