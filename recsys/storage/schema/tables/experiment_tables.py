"""Tables of experiments: what is tried, who was in which arm, and what came of it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text, text

from recsys.storage.schema.tables.table_types import BytewiseText, Micros, RowNumber, metadata

experiments = Table(
    "experiments",
    metadata,
    Column("name", BytewiseText, primary_key=True),
    Column("state", Text, nullable=False),  # 'draft', 'running' or 'stopped'
    Column("spec", Text, nullable=False),  # a JSON object
    Column("buckets", Text, nullable=False, server_default=text("'[]'")),  # JSON: [[from, to), ...]
    Column("author", Text, nullable=False),
    Column("created_at_us", Micros, nullable=False),
    Column("started_at_us", Micros),
    Column("stopped_at_us", Micros),
    Column("promoted", Text),  # the arm that everybody got afterwards
)

# Who sees an arm whatever the hash says, and is not counted.
experiment_testers = Table(
    "experiment_testers",
    metadata,
    Column("experiment", BytewiseText, primary_key=True),
    Column("unit", BytewiseText, primary_key=True),  # 'u:<user_id>' or 's:<session_id>'
    Column("arm", Text, nullable=False),
)
Index("ix_experiment_testers_unit", experiment_testers.c.unit)

# What each unit did since its first answer of an experiment: what reports are summed from.
experiment_units = Table(
    "experiment_units",
    metadata,
    Column("experiment", BytewiseText, primary_key=True),
    Column("unit", BytewiseText, primary_key=True),
    Column("arm", Text, nullable=False),
    Column("first_at_us", Micros, nullable=False),
    Column("answers", BigInteger, nullable=False, server_default=text("0")),
    Column("clicks", BigInteger, nullable=False, server_default=text("0")),  # answers with a click
    Column("conversions", BigInteger, nullable=False, server_default=text("0")),
    Column("value", Float, nullable=False, server_default=text("0")),
)
Index("ix_experiment_units_unit", experiment_units.c.unit)

# The conversions and returns that are in those figures, so that each is counted once and can be taken back.
experiment_outcomes = Table(
    "experiment_outcomes",
    metadata,
    Column("event_row_id", RowNumber, primary_key=True, autoincrement=False),
    Column("experiment", BytewiseText, primary_key=True),
    Column("unit", BytewiseText, nullable=False),
    Column("conversions", Integer, nullable=False),  # 1, or 0 of a return
    Column("value", Float, nullable=False),
)
Index("ix_experiment_outcomes_unit", experiment_outcomes.c.unit)

# The sums over an arm's units as they stood at the last refresh of each hour.
experiment_looks = Table(
    "experiment_looks",
    metadata,
    Column("experiment", BytewiseText, primary_key=True),
    Column("hour_us", Micros, primary_key=True, autoincrement=False),
    Column("arm", BytewiseText, primary_key=True),
    Column("units", BigInteger, nullable=False),
    Column("answers", Float, nullable=False),
    Column("answers2", Float, nullable=False),  # of squares
    Column("clicks", Float, nullable=False),
    Column("clicks2", Float, nullable=False),
    Column("answers_clicks", Float, nullable=False),  # of products
    Column("converted", BigInteger, nullable=False),  # units with a conversion
    Column("conversions", Float, nullable=False),
    Column("value", Float, nullable=False),
    Column("value2", Float, nullable=False),
)

# What a shadow arm would have answered, beside the answer that was given.
shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("recommendation_id", BytewiseText, primary_key=True),
    Column("experiment", BytewiseText, primary_key=True),
    Column("arm", Text, nullable=False),
    Column("created_at_us", Micros, nullable=False),
    Column("items", Text, nullable=False),  # JSON list of [item_id, source, score]
    Column("overlap", Float, nullable=False),  # share of the items shown that are among them
    Column("milliseconds", Float, nullable=False),
)
Index("ix_shadow_answers_experiment", shadow_answers.c.experiment, shadow_answers.c.created_at_us)
