"""Every command, registered in the order the help shows them."""

from __future__ import annotations

import typer

from recsys.cli import (
    admin,
    backup_restore,
    bench,
    consume,
    conversions,
    db,
    demo,
    doctor,
    experiments,
    imports,
    init,
    items,
    jobs,
    keys,
    models,
    plan,
    recommend,
    scenarios,
    serve,
    train,
    users,
)


def register(app: typer.Typer) -> None:
    """Add all commands to `app`, once."""
    if app.registered_commands:
        return
    for module in (
        init,
        train,
        recommend,
        serve,
        consume,
        conversions,
        demo,
        backup_restore,
        doctor,
        plan,
    ):
        module.register(app)
    for module in (db, imports, items, users, models, scenarios, experiments, jobs, keys, admin):
        app.add_typer(module.app)
    bench.register(app)
