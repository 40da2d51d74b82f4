"""What a connection is made with."""

from contextlib import closing

import pytest

from recsys.config import Settings
from recsys.storage.database import open_database


@pytest.mark.parametrize(("chosen", "level"), [({}, 2), ({"synchronous": "normal"}, 1)])
def test_a_commit_of_sqlite_is_on_the_disk_before_it_is_told(tmp_path, chosen, level):
    settings = Settings(database={"url": f"sqlite:///{tmp_path}/x.db", **chosen})
    with closing(open_database(settings)) as database:
        for connect in (database.begin, database.connect, database.read):
            with connect() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == level
