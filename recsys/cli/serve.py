"""recsys serve | schedule"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys import tracing
from recsys.cli.terminal import ConfigOption, now, say, set_up_logging
from recsys.config import Settings, load_settings
from recsys.config.process import limit_threads
from recsys.errors import RecsysError

SILENT_LEASES = 3.0  # without a word for as many lease times, a scheduler counts as gone


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)
    app.command("schedule")(schedule)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to bind.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Number of worker processes.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Serve the REST API and the dashboard with Granian until stopped.

    Example: recsys serve --port 8080 --workers 4
    """
    limit_threads()
    with tempfile.TemporaryDirectory(prefix="recsys-metrics-") as folder:
        # The workers' figures meet in its files; prometheus_client looks for it when imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _serve(host, port, workers, config)


def _serve(host: str | None, port: int | None, workers: int | None, config: Path | None) -> None:
    from jobs.slots import slots
    from recsys.serving.answer_log import disk_note
    from recsys.storage.engine.database import open_database
    from recsys.storage.schema import migrate
    from recsys.web.server import serve as run

    given: dict[str, Any] = {"host": host, "port": port, "workers": workers}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(config, serving=chosen)
    set_up_logging(settings)
    tracing.check(settings)  # here, for it is in each worker that spans are begun
    slots(settings)  # refuses a schedule that cannot be; the dashboard shows it
    database = open_database(settings)
    migrate.check(database)
    database.close()
    serving = settings.serving

    def announce(address: str, port: int) -> None:
        most = serving.workers * (settings.database.pool_size + serving.threads) * 2
        shown = f"[{address}]" if ":" in address else address
        say(f"serving on http://{shown}:{port} (dashboard at /admin, API at /docs)")
        if database.dialect == "postgresql":
            say(f"up to {most} database connections")
        say(disk_note(serving.impression_share, serving.impression_days, serving.default_k))
        if not settings.auth.enabled:
            say("auth.enabled is false: anyone who can reach this port can read and write")

    if not serving.storefront_key:
        run(settings, announce=announce)
        return
    from recsys.demo.storefront.shop_routes import add_storefront

    run(settings, add_storefront, announce)


def schedule(
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only check whether a scheduler is running; exit status 1 if not."
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Run the scheduler process; `python -m jobs` is the same.

    Example: recsys schedule
    """
    settings = load_settings(config)
    set_up_logging(settings)
    if check:
        _check_leading(settings)
        return
    tracing.check(settings)
    from jobs.schedule import run_scheduler

    run_scheduler(settings, config)


def _check_leading(settings: Settings) -> None:
    """Raise RecsysError unless a scheduler has renewed the lease lately; torch is not loaded."""
    from recsys.events.times import to_us
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import lease_rows

    with closing(open_database(settings)) as database, database.connect() as connection:
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    if lease.holder is None or lease.renewed_at_us is None:
        raise RecsysError("no scheduler is running")
    silent = (to_us(now()) - lease.renewed_at_us) / 1e6
    if silent > SILENT_LEASES * settings.schedule.lease_seconds:
        raise RecsysError(
            f"the scheduler {lease.holder} is not responding: last heartbeat {silent:.0f} s ago"
        )
