"""Keeping a database quick."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from recsys.storage.database import Database

TABLES = ("events", "items", "item_categories", "impressions", "job_runs")


def analyse(database: Database) -> dict[str, Any]:
    """Refresh the planner's statistics of the tables that requests read."""
    with database.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"ANALYZE {table}"))
    return {"tables": len(TABLES)}
