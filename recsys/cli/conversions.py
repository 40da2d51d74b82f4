"""recsys conversions"""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from recsys.cli.terminal import ConfigOption, JsonOption, now, settings_of, show
from recsys.errors import unknown


def register(app: typer.Typer) -> None:
    app.command("conversions")(conversions)


def conversions(
    by: Annotated[
        str, typer.Option(help="Of scenario, arm, version, source, category, hour, by commas.")
    ] = "scenario,arm",
    days: Annotated[int, typer.Option(min=1, max=366, help="Of answers of so many days.")] = 7,
    pages: Annotated[
        bool,
        typer.Option(
            "--pages/--no-pages",
            help="Whether those count that a page told of, whose key is public.",
        ),
    ] = True,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what answers brought: clicks, conversions and their value.

    Example: recsys conversions --by scenario --days 30
    """
    from recsys.events.times import DAY_US, HOUR_US, rfc3339, to_us
    from recsys.storage.dashboard.conversion_figures import By, conversion_report
    from recsys.storage.engine.database import open_database

    names: list[By] = []
    for name in dict.fromkeys(by.split(",")):
        found = next((one for one in get_args(By) if one == name), None)
        if found is None:
            raise unknown("--by", name, "a column of the report", get_args(By))
        names.append(found)
    settings = settings_of(config)
    currency = settings.attribution.currency
    until = to_us(now())
    since = until - days * DAY_US
    since -= since % HOUR_US
    with open_database(settings).connect() as connection:
        rows = conversion_report(connection, since, until, names, currency, pages=pages)
    result = {
        "since": rfc3339(since),
        "until": rfc3339(until),
        "currency": currency or None,
        "rows": [row.to_json(names) for row in rows],
    }
    lines = []
    for row in rows:
        shown = row.to_json(names)
        what = "  ".join(f"{name} {shown[name] or 'none'}" for name in names)
        line = f"{what}: {row.found.conversions:,.4g} conversions, {row.found.returns:,.4g} returns"
        if row.conversion_rate is not None:
            share, low, high = row.conversion_rate
            line += f", {share:.2%} of what was shown ({low:.2%} to {high:.2%})"
        line += f", value {row.found.value:,.2f} {currency}".rstrip()
        if row.value_per_user is not None:
            mean, low, high = row.value_per_user
            line += f", {mean:,.4g} per user ({low:,.4g} to {high:,.4g})"
        lines.append(line)
    show(result, as_json, "\n".join(lines) or "no answers in these days")
