"""Commands of `recsys bench` in a checkout, one function each, in the order the help shows them."""

from __future__ import annotations

from bench.commands.drill_commands import chaos, faults, instances
from bench.commands.experiment_commands import experiments
from bench.commands.log_commands import consume, expressions, ingest, scale, sequences, table
from bench.commands.server_commands import (
    beside,
    freshness,
    intake,
    pages,
    serve,
    soak,
    swap,
)
from bench.commands.steering_commands import conversions, steering
from bench.commands.training_commands import replay, rerank, train

COMMANDS = (
    *(
        train,
        replay,
        rerank,
        steering,
        conversions,
        ingest,
        consume,
        sequences,
        expressions,
        table,
        scale,
        serve,
        intake,
        soak,
        beside,
        pages,
    ),
    *(chaos, instances, swap, freshness, faults, experiments),
)
