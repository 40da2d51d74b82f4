"""The planner's statistics, in both databases."""

from recsys.storage.engine import database_health


def test_statistics_keep_writers_waiting_for_one_table_at_most(database):
    from sqlalchemy import event as listen

    commits = []
    listen.listen(database.engine, "commit", commits.append)
    assert database_health.analyse(database) == {"tables": len(database_health.ANALYSED_TABLES)}
    assert len(commits) == len(database_health.ANALYSED_TABLES)
    if database.dialect == "sqlite":
        with database.begin() as connection:
            assert connection.exec_driver_sql("PRAGMA analysis_limit").scalar() == 1_000
