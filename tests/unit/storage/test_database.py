"""What a connection is made with."""

from contextlib import closing, suppress

import pytest

from recsys.config import Settings
from recsys.errors import StorageUnavailableError
from recsys.storage.database import Patience, open_database


@pytest.mark.parametrize(("chosen", "level"), [({}, 2), ({"synchronous": "normal"}, 1)])
def test_a_commit_of_sqlite_is_on_the_disk_before_it_is_told(tmp_path, chosen, level):
    settings = Settings(database={"url": f"sqlite:///{tmp_path}/x.db", **chosen})
    with closing(open_database(settings)) as database:
        for connect in (database.begin, database.connect, database.read):
            with connect() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == level


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_is_lost_is_told_of_and_let_go(database_url):
    settings = Settings(database={"url": database_url})
    with closing(open_database(settings, held=1)) as database:
        for enter in (database.read, database.connect, database.begin):
            with enter() as connection:
                driver = connection.connection.driver_connection
            driver.close()
            with suppress(StorageUnavailableError), enter():
                pass
            with enter() as connection:
                assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_patience_covers_what_is_asked_of_others_meanwhile():
    bare = Patience.of(Settings(database={"busy_timeout_seconds": 0}))
    assert 0 < bare.read < bare.transaction < bare.query
    columns = {"user_column": "u", "item_column": "i", "timestamp_column": "t"}
    source = {"table": "clicks", "timeout_seconds": 4, **columns}
    mapped = Patience.of(Settings(database={"busy_timeout_seconds": 0}, events=source))
    assert mapped.read > bare.read + 4
