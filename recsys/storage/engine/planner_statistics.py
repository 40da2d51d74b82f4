"""Keeping a database quick."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from recsys.storage.engine.database import Database

TABLES = ("events", "items", "item_categories", "impressions", "job_runs")
SAMPLED_ROWS = 1_000  # of each index, in SQLite; PostgreSQL samples by itself


def analyse(database: Database) -> dict[str, Any]:
    """Refresh the planner's statistics of the tables that requests read.

    Writers wait for one table's sample at most.
    """
    for table in TABLES:
        with database.begin() as connection:
            if database.dialect == "sqlite":
                connection.execute(text(f"PRAGMA analysis_limit={SAMPLED_ROWS}"))
            connection.execute(text(f"ANALYZE {table}"))
    return {"tables": len(TABLES)}
