"""recsys events import | export | check | rejected"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli.read_options import reading_options, refuse_reading, with_own_names
from recsys.cli.terminal import ConfigOption, JsonOption, now, row_progress, say, settings_of, show

if TYPE_CHECKING:
    from recsys.ingest.event_files import ReadOptions

app = typer.Typer(name="events", help="Import, export and check events.", no_args_is_help=True)


@app.command("import")
@reading_options
def import_(
    paths: Annotated[
        list[str],
        typer.Argument(help="CSV, TSV, JSON (.gz, .zst, .zip) or Parquet; patterns; - for stdin."),
    ],
    *,
    reading: ReadOptions,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import the events of files. Importing a file again adds nothing; bad rows are quarantined.

    Example: recsys events import clicks.csv.gz --map user=uid,item=sku,timestamp=ts --unit ms
    """
    from recsys.ingest.event_files import file_size
    from recsys.ingest.input_files import local_files
    from recsys.pipeline import import_events
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities.event_import import ImportSummary
    from recsys.storage.events_source import open_events_source

    settings = settings_of(config)
    database = open_database(settings)
    open_events_source(settings, database).check_writable()
    done: list[ImportSummary] = []
    types, reading = settings.event_types(), with_own_names(reading, settings)
    with local_files(paths) as files:
        for path in files:
            size = file_size(path)
            with row_progress(f"{path.name} ({size / 1e6:.1f} MB)") as on_progress:
                one = import_events(database, path, reading, now(), on_progress, known_types=types)
                done.append(one)
        summary = ImportSummary.of(done)
        each = [{"path": path.name, **one.plain()} for path, one in zip(files, done, strict=True)]
    if summary.rejected and not as_json:
        say("Rejected rows wait in quarantine, with reasons: recsys events rejected")
    plain = summary.plain()
    if as_json and len(each) > 1:
        plain["files"] = each
    _show_counts(plain, summary.notes, as_json)
    if summary.read and summary.rejected == summary.read - summary.skipped:
        raise typer.Exit(1)


def _show_counts(counts: dict[str, Any], notes: Mapping[str, int], as_json: bool) -> None:
    """What became of rows, and what is to be known of some of them."""
    if not as_json:
        for words, rows in notes.items():
            say(f"note: {words}: {rows:,} rows")
    show(counts if as_json else {k: v for k, v in counts.items() if k != "notes"}, as_json)


@app.command("export")
def export(
    path: Annotated[Path, typer.Argument(help="A .parquet, .csv or .jsonl file to write.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export all events to a file that `events import` can read.

    Example: recsys events export events.parquet
    """
    from recsys.pipeline import export_events
    from recsys.storage.engine.database import open_database

    settings = settings_of(config)
    database = open_database(settings)
    show({"events": export_events(settings, database, path, now()), "path": str(path)}, as_json)


@app.command("check")
@reading_options
def check(
    path: Annotated[
        Path | None, typer.Argument(help="A file. Default: the mapped table, or the service's own.")
    ] = None,
    *,
    reading: ReadOptions,
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write the report to this HTML file.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report what is in a log and whether its order carries signal; nothing is stored.

    Example: recsys events check --html check.html
    """
    from recsys.cli.dry_run_page import html_of, text_of
    from recsys.ingest.input_files import local_file
    from recsys.pipeline import check_events
    from recsys.storage.engine.database import open_database

    if path is None:
        refuse_reading(reading, "is of a file; expected its PATH, or [events] alone")
    settings = settings_of(config)
    with local_file(path) as file, row_progress("check") as on_progress:
        database = open_database(settings)
        chosen = with_own_names(reading, settings)
        report = check_events(settings, database, now(), file, chosen, on_progress)
    if page is not None:
        page.write_text(html_of(report), encoding="utf-8")
    show(report, as_json, text_of(report))


@app.command("rejected")
@reading_options
def rejected(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 20,
    replay: Annotated[
        bool, typer.Option(help="Read the rows again, with the options given here.")
    ] = False,
    *,
    reading: ReadOptions,
    source: Annotated[str | None, typer.Option(help="Only rows of this file.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the quarantined rows, or replay them.

    Example: recsys events rejected --replay --map user=uid,item=sku,timestamp=ts --unit ms
    """
    from recsys.pipeline import replay_rejected
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import rejected_rows

    settings = settings_of(config)
    database = open_database(settings)
    if replay:
        chosen = with_own_names(reading, settings)
        found = replay_rejected(database, chosen, source, now(), settings.event_types())
        if found["unreadable"] and not as_json:
            count = f"{found['unreadable']:,} rows"
            say(f"Of {count} too little was kept to read them again: import their files again")
        _show_counts(found, found["notes"], as_json)
        return
    refuse_reading(reading, "is for --replay")
    with database.connect() as connection:
        waiting = rejected_rows.count_rejected(connection)
        rows = rejected_rows.list_rejected(connection, limit, source=source)
    lines = [f"{row['source']}:{row['position']}  {row['reason']}  {row['raw']}" for row in rows]
    lines.append(f"{waiting:,} rows in quarantine")
    shown = [{k: row[k] for k in ("id", "source", "position", "reason", "raw")} for row in rows]
    show({"waiting": waiting, "rows": shown}, as_json, "\n".join(lines))
