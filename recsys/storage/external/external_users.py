"""Copy the users' attributes of `events.users_query`: those that differ from what is stored are stored."""

from __future__ import annotations

from recsys.config import Settings
from recsys.errors import InputError
from recsys.ingest.user_body import UserAttributes
from recsys.ingest.user_files import user_of
from recsys.storage.engine.database import Database
from recsys.storage.entities import attribute_rows
from recsys.storage.entities.attribute_rows import Put
from recsys.storage.external.queried_rows import CopyResult, queried_rows


def copy_users(settings: Settings, database: Database, now_us: int) -> CopyResult:
    """Read `events.users_query` whole and store what is new or different of the users' attributes.

    Columns other than user_id are attributes; null takes one away, and what the query has no column
    for stays, as do users who are gone from there. Rows of users who were erased, or merged into another,
    whose own row tells what holds, are passed over. Raises ConfigError where the query is refused,
    SourceUnavailableError.
    """
    read = changed = rejected = 0
    problem = None
    with queried_rows(settings, "users_query", "user_id") as queried:
        for rows in queried.batches:
            given: list[UserAttributes] = []
            for row in rows:
                try:
                    given.append(user_of(row, "user_id"))
                except InputError as error:
                    rejected += 1
                    problem = problem or str(error)
            done = _store(database, given, now_us)
            changed += done.new + done.changed
            reasons = [why for _, why in done.left_out if why != attribute_rows.ERASED]
            rejected += len(reasons)
            problem = problem or next(iter(reasons), None)
            read += len(rows)
    return CopyResult(read, changed, rejected, problem)


def _store(database: Database, given: list[UserAttributes], now_us: int) -> Put:
    with database.connect() as connection:
        merged = attribute_rows.merged_ids(connection, [one.user_id for one in given])
        own = [one for one in given if one.user_id not in merged]
        done = attribute_rows.changes_nothing(connection, own, "update")
    if done is None:
        with database.begin() as connection:
            done = attribute_rows.put_attributes(connection, own, "update", now_us)
    return done
