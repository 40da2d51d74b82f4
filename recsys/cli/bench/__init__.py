"""recsys bench: measurements, one command each; `recsys bench --help` lists them."""

from __future__ import annotations

import typer

from recsys.cli.bench.breaking import chaos, faults, instances
from recsys.cli.bench.learning import quality, train
from recsys.cli.bench.reading import ingest, scale, sequences, table
from recsys.cli.bench.serving import beside, freshness, pages, serve, soak, swap

app = typer.Typer(name="bench", help="Measurements, self-contained.", no_args_is_help=True)

# In the order the help shows them.
for command in (
    *(quality, train, ingest, sequences, table, scale, serve, soak, beside, pages),
    *(chaos, instances, swap, freshness, faults),
):
    app.command(command.__name__)(command)
