"""recsys recommend"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of, show
from recsys.errors import InputError


def register(app: typer.Typer) -> None:
    app.command("recommend")(recommend)


def recommend(
    user: Annotated[str | None, typer.Argument(help="A user's id.")] = None,
    session: Annotated[str | None, typer.Option(help="A session's id.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1_000, help="How many items.")] = 10,
    everyone: Annotated[
        bool, typer.Option("--all", help="Recommend for every user, into --output.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="A .parquet file, for --all.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the past events behind each item.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the items a user or session is likely to want next.

    Example: recsys recommend u123 -k 5
    """
    from recsys.events.times import to_us
    from recsys.serving import answering
    from recsys.serving.answers import Request
    from recsys.serving.explain import main_reasons
    from recsys.serving.recommender import Recommender
    from recsys.storage.engine.database import open_database
    from recsys.web.api.answer_schemas import answer_out

    settings = settings_of(config)
    database = open_database(settings)
    if everyone:
        if output is None:
            raise InputError("--output", None, "expected a .parquet file to write with --all")
        rows = answering.recommend_all(settings, database, k, output, now())
        show({"users": rows, "path": str(output)}, as_json)
        return
    if user is None and session is None:
        raise InputError("USER", None, "expected a user's id, or --session")
    with database.connect():  # a service answers without its database; here it is a mistake
        pass
    recommender = Recommender(settings, database, time.monotonic)
    request = Request(
        user_id=user,
        session_id=session,
        k=k,
        exclude_seen=settings.serving.exclude_seen,
        explain=explain,
    )
    at_us = to_us(now())
    if problem := recommender.follow_once(at_us):
        typer.echo(problem, err=True)
    answer = answering.recommend(recommender, request, at_us)
    why = {reason.item_id for item in answer.items for reason in item.reason or ()}
    known = recommender.catalogue.latest.look_up(database, sorted(why))

    def named(item_id: str) -> str:
        item = known.get(item_id)
        return f"{item_id} {item.title}" if item is not None and item.title else item_id

    lines = []
    for item in answer.items:
        title = item.item.title or "" if item.item else ""
        line = f"{item.rank:>4}  {item.item_id:<24} {item.score:>9.4f}  {item.source:<16} {title}"
        lines.append(line.rstrip())
        lines += [
            f"{'':6}because of {named(item_id)} ({share:.0%})"
            for item_id, share in main_reasons(item.reason)
        ]
    head = f"{answer.sequence_length} events read, model {answer.model_version or '-'}"
    if answer.degraded:
        head += f"; {answer.degraded}"
    if not answer.items:
        model = "" if answer.model_version else "; train a model first: recsys train"
        head += f"\nnothing to recommend{model}"
    if answer.seen and answer.model_version:
        head += f"\nseen items left out: {answer.seen.exclude_seen}"
        head += f"; {answer.seen.why}" if answer.seen.why else ""
    show(answer_out(answer), as_json, "\n".join([head, *lines]))
