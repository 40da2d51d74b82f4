"""Keys while the database is away."""

from contextlib import closing

import pytest
from flask import Flask

from recsys.config import AuthSettings
from recsys.errors import AuthenticationError, StorageUnavailableError
from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from recsys.storage.schema import migrate
from recsys.web.api_keys import SEEN_SECONDS, Keys
from recsys.web.rate_limits import open_limits


def test_a_key_is_believed_without_the_database_for_a_bounded_time(tmp_path):
    path, away, now = tmp_path / "recsys.db", tmp_path / "away.db", [0.0]
    with closing(Database(f"sqlite:///{path}")) as database:
        migrate.upgrade(database)
        with database.begin() as connection:
            shop, other, gone = (
                key_rows.create_key(connection, name, ["read"], 1)
                for name in ("shop", "other", "gone")
            )
        keys = Keys(database, AuthSettings(), open_limits("memory"), lambda: now[0])

        def ask(key):
            with Flask("x").test_request_context(headers={"X-API-Key": key}):
                return keys.require("read").name

        assert (ask(shop), ask(gone)) == ("shop", "gone")
        now[0] = 100.0
        assert ask(shop) == "shop"  # asked about anew, so believed for longer
        with database.begin() as connection:
            key_rows.revoke_key(connection, gone.split("_")[1], 1)
        with pytest.raises(AuthenticationError):
            ask(gone)

        database.close()
        path.rename(away)
        path.mkdir()  # in place of the file
        for key in (other, gone):  # never seen here; seen, and known to be revoked
            with pytest.raises(StorageUnavailableError):
                ask(key)
        now[0] = 100.0 + SEEN_SECONDS
        assert ask(shop) == "shop"
        now[0] += 1.0
        with pytest.raises(StorageUnavailableError):
            ask(shop)

        path.rmdir()
        away.rename(path)
        assert (ask(shop), ask(other)) == ("shop", "other")


def test_origins_are_believed_without_the_database_as_they_were_last_known(tmp_path):
    path, away = tmp_path / "recsys.db", tmp_path / "away.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        migrate.upgrade(database)
        with database.begin() as connection:
            origins = ["https://shop.example"]
            key_rows.create_key(connection, "page", ["collect"], 1, origins)
        keys = Keys(database, AuthSettings(), open_limits("memory"))

        def allowed(origin="https://shop.example"):
            with Flask("x").test_request_context():
                return keys.allows_origin(origin)

        assert allowed() and not allowed("https://elsewhere.example")
        database.close()
        path.rename(away)
        path.mkdir()
        assert allowed() and not allowed("https://elsewhere.example")
        path.rmdir()
        away.rename(path)
