"""recsys models list | show | promote | rollback | export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, settings_of, show, steering
from recsys.errors import InputError

app = typer.Typer(
    name="models", help="List, promote and export model versions.", no_args_is_help=True
)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List versions, newest first; the champion is marked.

    Example: recsys models list
    """
    from recsys.events.times import rfc3339
    from recsys.models.version_facts import VersionFacts
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import version_rows

    with open_database(settings_of(config)).connect() as connection:
        serving, _ = version_rows.champion_name(connection) or (None, None)
        rows = version_rows.list_versions(connection, limit)
    shown: list[dict[str, object]] = []
    lines: list[str] = []
    for row in rows:
        served = VersionFacts.from_json(row.facts).metrics.get("served", {})
        mrr, recall = served.get("mrr@20", 0.0), served.get("recall@20", 0.0)
        positions, is_champion = served.get("positions"), row.version == serving
        shown.append(
            {
                "version": row.version,
                "champion": is_champion,
                "state": row.state,
                "ranking": row.ranking,
                "mrr@20": mrr,
                "recall@20": recall,
                "positions": positions,
                "data_end": rfc3339(row.data_end_us),
            }
        )
        lines.append(
            f"{'*' if is_champion else ' '} {row.version}  {row.state:<10} "
            f"{row.ranking:<12} MRR@20 {mrr:.4f}  recall@20 {recall:.4f}"
            + ("" if positions is None else f"  of {positions:,} positions")
        )
    show({"models": shown}, as_json, "\n".join(lines) or "no versions yet; run: recsys train")


@app.command("show")
def show_(
    version: Annotated[str, typer.Argument(help="A version's name.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one version: its metrics and the gate's verdict.

    Example: recsys models show 20250131-093000-a1b2c3
    """
    from recsys.models.version_facts import Verdict, VersionFacts
    from recsys.storage.engine.database import open_database
    from recsys.storage.entities import version_rows
    from recsys.training.report import text_table

    with open_database(settings_of(config)).connect() as connection:
        row = version_rows.get_version(connection, version)
    facts = VersionFacts.from_json(row.facts)
    seen = "" if facts.seen is None else f"seen items: {facts.seen.said()}\n"
    text = (
        f"{row.version}  {row.state}, serves {row.ranking}, {row.event_count:,} events, "
        f"{row.item_count:,} items, {row.size_bytes / 1e6:.1f} MB\n"
        f"{Verdict.from_json(row.verdict).reason}\n{seen}\n"
        f"{text_table(facts.metrics)}"
    )
    show(vars(row), as_json, text)


@app.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="A version's name.")],
    reason: Annotated[str, typer.Option(help="The reason, kept with the deployment.")] = "by hand",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion.

    Example: recsys models promote 20250131-093000-a1b2c3 --reason "back to the old one"
    """
    from recsys.commands import deployments

    database, actor, now_us = steering(config)
    deployments.promote(database, actor, version, reason, now_us)
    show({"champion": version}, as_json)


@app.command("rollback")
def rollback(
    reason: Annotated[
        str, typer.Option(help="The reason, kept with the deployment.")
    ] = "rolled back by hand",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the champion before this one.

    Example: recsys models rollback
    """
    from recsys.commands import deployments

    database, actor, now_us = steering(config)
    show({"champion": deployments.roll_back(database, actor, reason, now_us)}, as_json)


@app.command("export")
def export(
    version: Annotated[str, typer.Argument(help="A version's name.")],
    output: Annotated[Path, typer.Option(help="The file to write.")],
    format_: Annotated[str, typer.Option("--format", help="onnx.")] = "onnx",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version's network for a runtime without torch, checked against the network itself.

    Example: recsys models export 20250131-093000-a1b2c3 --output model.onnx
    """
    from recsys import pipeline
    from recsys.storage.engine.database import open_database

    if format_ != "onnx":
        raise InputError("--format", format_, "expected onnx")
    settings = settings_of(config)
    worst = pipeline.export_model(settings, open_database(settings), version, output)
    result = {"path": str(output), "bytes": output.stat().st_size, "largest_difference": worst}
    show(result, as_json, f"written to {output}; largest difference to the network {worst:.1e}")
