"""Tables of what the people who run the shop decide."""

from __future__ import annotations

from sqlalchemy import Column, Integer, Table, Text

from recsys.storage.schema.tables.table_types import Micros, metadata

# Which version of each scenario answers. A deleted scenario has no row here; its versions stay.
scenarios = Table(
    "scenarios",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)

# Append only; the numbers of a name's versions go up and are never given twice.
scenario_versions = Table(
    "scenario_versions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("author", Text, nullable=False),
    Column("created_at_us", Micros, nullable=False),
    Column("note", Text),  # 'rollback to 3'
    Column("spec", Text, nullable=False),  # JSON object
)
