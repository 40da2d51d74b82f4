"""A table is altered while services read it: PostgreSQL refuses a prepared statement whose columns changed."""

from contextlib import closing

import pytest
from sqlalchemy import text

from recsys.errors import StorageUnavailableError
from recsys.storage.engine.database import Database
from recsys.storage.external.external_database import ExternalDatabase

OFTEN = 7  # executions after which the driver has prepared a statement
pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def owner(database_url):
    with closing(Database(database_url)) as owner:
        with owner.begin() as connection:
            connection.execute(text("CREATE TABLE altered (name text)"))
            connection.execute(text("INSERT INTO altered VALUES ('a')"))
        yield owner


def alter(owner):
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE altered ALTER name TYPE varchar(9), ADD more int"))


@pytest.mark.parametrize("source", ["own", "external"])
def test_reads_go_on(owner, database_url, source):
    with closing({"own": Database, "external": ExternalDatabase}[source](database_url)) as reader:
        for number in range(2 * OFTEN):
            if number == OFTEN:
                alter(owner)
            with reader.read() as connection:
                found = connection.execute(text("SELECT * FROM altered")).all()
            assert found == ([("a",)] if number < OFTEN else [("a", None)])


def test_a_transaction_that_is_refused_succeeds_when_tried_again(owner, database_url):
    with closing(Database(database_url, pool_size=1)) as writer:

        def read():
            with writer.begin() as connection:
                connection.execute(text("SELECT 1"))
                return connection.execute(text("SELECT * FROM altered")).all()

        for _ in range(OFTEN):
            assert read() == [("a",)]
        alter(owner)
        with pytest.raises(StorageUnavailableError):
            read()
        assert read() == [("a", None)]
