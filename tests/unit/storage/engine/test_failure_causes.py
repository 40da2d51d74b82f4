"""Causes of failures, from the words of drivers and from a real server."""

import uuid

import pytest
from sqlalchemy import create_engine, make_url

from recsys.errors import SourceUnavailableError, StorageUnavailableError
from recsys.storage.engine.database import Database
from recsys.storage.engine.failure_causes import cause_of
from recsys.storage.external.external_database import ExternalDatabase

SECRET = "geheim-7"
WORDS = {
    'connection failed: FATAL:  password authentication failed for user "ann"': "user name or pass",
    "(1045, \"Access denied for user 'ann'@'localhost' (using password: YES)\")": "user name or pa",
    'FATAL:  role "ann" does not exist': "role",
    'FATAL:  database "shop" does not exist': "database does not exist",
    "(1049, \"Unknown database 'shop'\")": "database does not exist",
    "permission denied for table clicks": "GRANT",
    "(1044, \"Access denied for user 'ann'@'%' to database 'shop'\")": "GRANT",
    "received invalid response to SSL negotiation: J": "no such database",
    "(2013, 'Lost connection to MySQL server during query')": "hung up",
    "(1142, \"SELECT command denied to user 'ann'@'%' for table 'clicks'\")": "GRANT",
    "[Errno -2] Name or service not known": "host name is unknown",
    "(2003, \"Can't connect to MySQL server on 'h' ([Errno 111] Connection refused)\")": "refused",
    "server does not support SSL, but SSL was required": "TLS",
    "connection timeout expired": "no answer in time",
    'FATAL:  no pg_hba.conf entry for host "10.0.0.1"': "pg_hba.conf",
    "FATAL:  sorry, too many clients already": "no more connections",
    "file is not a database": "no SQLite database",
}


@pytest.mark.parametrize("words", WORDS)
def test_a_cause_is_told_without_the_words(words):
    cause = cause_of(OSError(words))
    assert cause is not None and WORDS[words] in cause
    assert not {"ann", "shop", "clicks", "10.0.0.1"} & set(cause.replace(":", " ").split())


def test_what_is_not_known_is_not_guessed():
    assert cause_of(OSError("something else")) is None


def test_a_server_says_why_it_does_not_answer(postgres_server):
    right = make_url(postgres_server).set(password=SECRET)
    wrong = {
        "database does not exist": right.set(database="no_such_database"),
        "role": right.set(username="no_such_role"),
        "refused": right.set(host="127.0.0.1", port=9),
        "host name is unknown": right.set(host="no-such-host.invalid"),
        "an option that its driver does not know": right.update_query_dict({"colour": "blue"}),
    }
    for cause, url in wrong.items():
        shown = url.render_as_string(hide_password=False)
        with (
            pytest.raises(SourceUnavailableError, match=cause) as caught,
            ExternalDatabase(shown).connect(),
        ):
            pass
        assert SECRET not in str(caught.value) and "events.url" in str(caught.value)
        with (
            pytest.raises(StorageUnavailableError, match=cause) as caught,
            Database(shown).connect(),
        ):
            pass
        assert SECRET not in str(caught.value) and "database.url" in str(caught.value)


def test_a_role_without_rights_is_told_so(postgres_server):
    address = make_url(postgres_server)
    name = f"reader_{uuid.uuid4().hex[:8]}"
    engine = create_engine(
        address.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE TABLE {name} (n int)")
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
        shown = address.set(username=name, password=SECRET).render_as_string(hide_password=False)
        for opened, error in (
            (Database(shown), StorageUnavailableError),
            (ExternalDatabase(shown), SourceUnavailableError),
        ):
            with (
                pytest.raises(error, match="lacks a GRANT") as caught,
                opened.connect() as connection,
            ):
                connection.exec_driver_sql(f"SELECT n FROM {name}")
            assert not {SECRET, "SELECT", name} & set(str(caught.value).split())
            opened.close()
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP TABLE {name}")
            connection.exec_driver_sql(f"DROP ROLE {name}")
        engine.dispose()


def test_a_file_that_is_no_database_is_told_so(tmp_path):
    file = tmp_path / "junk.db"
    file.write_text("junk" * 1_000)
    for opened, error in (
        (Database(f"sqlite:///{file}"), StorageUnavailableError),
        (ExternalDatabase(f"sqlite:///{file}"), SourceUnavailableError),
    ):
        with (
            pytest.raises(error, match="no SQLite database") as caught,
            opened.connect() as connection,
        ):
            connection.exec_driver_sql("SELECT 1 FROM sqlite_master")
        assert str(file) not in str(caught.value)
