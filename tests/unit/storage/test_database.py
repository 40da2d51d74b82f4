"""What a connection is made with."""

from contextlib import closing

import pytest

from recsys.config import Settings
from recsys.storage.database import Patience, open_database


@pytest.mark.parametrize(("chosen", "level"), [({}, 2), ({"synchronous": "normal"}, 1)])
def test_a_commit_of_sqlite_is_on_the_disk_before_it_is_told(tmp_path, chosen, level):
    settings = Settings(database={"url": f"sqlite:///{tmp_path}/x.db", **chosen})
    with closing(open_database(settings)) as database:
        for connect in (database.begin, database.connect, database.read):
            with connect() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == level


def test_patience_covers_what_is_asked_of_others_meanwhile():
    bare = Patience.of(Settings(database={"busy_timeout_seconds": 0}))
    assert 0 < bare.read < bare.transaction < bare.query
    columns = {"user_column": "u", "item_column": "i", "timestamp_column": "t"}
    source = {"table": "clicks", "timeout_seconds": 4, **columns}
    mapped = Patience.of(Settings(database={"busy_timeout_seconds": 0}, events=source))
    assert mapped.read > bare.read + 4
