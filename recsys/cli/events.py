"""recsys events import | export | check | rejected"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, now, progress_bar, say, settings_of, show
from recsys.errors import InputError

app = typer.Typer(name="events", help="Events in and out.", no_args_is_help=True)

MapOption = Annotated[
    str,
    typer.Option(
        "--map",
        help="Columns by meaning: user=…,item=…,timestamp=…,event_type=…,session=…,"
        "event_id=…,value=…",
    ),
]
UnitOption = Annotated[str | None, typer.Option(help="Of numeric timestamps: s, ms, us or ns.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(help="Keep rows where 'column OP value' (= != < <= > >=); may be repeated."),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="A public layout: retailrocket, yoochoose, diginetica, movielens or rees46.",
    ),
]


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines (.gz, .zst) or Parquet.")],
    columns: MapOption = "",
    unit: UnitOption = None,
    default_type: Annotated[str, typer.Option(help="Type of events that name none.")] = "view",
    where: WhereOption = None,
    format_: FormatOption = None,
    timezone: Annotated[
        str | None, typer.Option(help="IANA zone of times without a UTC offset.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store a file's events. Repeating it adds nothing; bad rows go to the quarantine.

    Example: recsys events import clicks.csv.gz --map user=uid,item=sku,timestamp=ts --unit ms
    """
    from recsys.ingest.event_files import ColumnMap, ReadOptions, file_size
    from recsys.pipeline import import_events
    from recsys.storage.engine.database import open_database
    from recsys.storage.events_source import open_events_source

    options = ReadOptions(
        columns=ColumnMap.parse(columns),
        unit=unit,
        default_type=default_type,
        where=tuple(where or ()),
        format=format_,
        timezone=timezone,
    )
    settings = settings_of(config)
    database = open_database(settings)
    open_events_source(settings, database).check_writable()
    size = file_size(path)
    with progress_bar(f"{path.name} ({size / 1e6:.1f} MB)", None) as (progress, task):

        def on_progress(stage: str, rows: int) -> None:
            progress.update(task, note=f"{stage} {rows:,} rows")

        summary = import_events(database, path, options, now(), on_progress)
    if summary.rejected and not as_json:
        say("Rejected rows wait in quarantine, with reasons: recsys events rejected")
    if not as_json:
        for words, rows in summary.notes.items():
            say(f"note: {words}: {rows:,} rows")
    plain = summary.plain()
    show(plain if as_json else {k: v for k, v in plain.items() if k != "notes"}, as_json)
    if summary.read and summary.rejected == summary.read - summary.skipped:
        raise typer.Exit(1)


@app.command("export")
def export(
    path: Annotated[Path, typer.Argument(help="A .parquet, .csv or .jsonl file to write.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all events to a file that `events import` takes back.

    Example: recsys events export events.parquet
    """
    from recsys.pipeline import export_events
    from recsys.storage.engine.database import open_database

    settings = settings_of(config)
    database = open_database(settings)
    show({"events": export_events(settings, database, path, now()), "path": str(path)}, as_json)


@app.command("check")
def check(
    path: Annotated[
        Path | None, typer.Argument(help="A file; without one, the mapped table or the own one.")
    ] = None,
    columns: MapOption = "",
    unit: UnitOption = None,
    default_type: Annotated[str, typer.Option(help="Type of events that name none.")] = "view",
    where: WhereOption = None,
    format_: FormatOption = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of times without an offset.")] = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write the report as a page here.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a log and whether its order carries signal; nothing is stored.

    Example: recsys events check --html check.html
    """
    given = {"--map": columns, "--unit": unit, "--where": where, "--format": format_}
    named = next((name for name, value in given.items() if value), None)
    if path is None and named is not None:
        raise InputError(named, given[named], "is of a file; expected its PATH, or [events] alone")
    from recsys.cli.dry_run_page import html_of, text_of
    from recsys.ingest.event_files import ColumnMap, ReadOptions
    from recsys.pipeline import check_events
    from recsys.storage.engine.database import open_database

    options = ReadOptions(
        columns=ColumnMap.parse(columns),
        unit=unit,
        default_type=default_type,
        where=tuple(where or ()),
        format=format_,
        timezone=timezone,
    )
    settings = settings_of(config)
    with progress_bar("check", None) as (progress, task):

        def on_progress(stage: str, rows: int) -> None:
            progress.update(task, note=f"{stage} {rows:,} rows")

        database = open_database(settings)
        report = check_events(settings, database, now(), path, options, on_progress)
    if page is not None:
        page.write_text(html_of(report), encoding="utf-8")
    show(report, as_json, text_of(report))


@app.command("rejected")
def rejected(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most rows shown.")] = 20,
    replay: Annotated[
        bool, typer.Option(help="Read the rows again, with the options given here.")
    ] = False,
    columns: MapOption = "",
    unit: UnitOption = None,
    default_type: Annotated[str, typer.Option(help="Type of events that name none.")] = "view",
    timezone: Annotated[str | None, typer.Option(help="Zone of times without an offset.")] = None,
    source: Annotated[str | None, typer.Option(help="Only rows of this file.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the quarantine, or replay it.

    Example: recsys events rejected --replay --map user=uid,item=sku,timestamp=ts --unit ms
    """
    from recsys.ingest.event_files import ColumnMap, ReadOptions
    from recsys.pipeline import replay_rejected
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import rejected_rows

    database = open_database(settings_of(config))
    if replay:
        options = ReadOptions(
            columns=ColumnMap.parse(columns),
            unit=unit,
            default_type=default_type,
            timezone=timezone,
        )
        show(replay_rejected(database, options, source, now()), as_json)
        return
    with database.connect() as connection:
        waiting = rejected_rows.count_rejected(connection)
        rows = rejected_rows.list_rejected(connection, limit, source=source)
    lines = [f"{row['source']}:{row['position']}  {row['reason']}  {row['raw']}" for row in rows]
    lines.append(f"{waiting:,} rows in quarantine")
    shown = [{k: row[k] for k in ("id", "source", "position", "reason", "raw")} for row in rows]
    show({"waiting": waiting, "rows": shown}, as_json, "\n".join(lines))
