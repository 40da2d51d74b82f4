"""Versions and deployments as rows."""

import pytest

from recsys.errors import ConflictError, NotFoundError
from recsys.storage.entities import (
    version_rows,
)


def test_champion_promotion_and_roll_back(database, version_row):
    with database.begin() as connection:
        assert version_rows.champion(connection) is None
        for name in ("v1", "v2", "v3"):
            version_rows.add_version(connection, version_row(name, verdict={"reason": "é"}))
            version_rows.deploy(connection, name, 1, "test", "because")
        assert version_rows.champion_name(connection) == ("v3", "0" * 64)
        assert version_rows.roll_back(connection, 2, "test", "worse") == "v2"
        assert version_rows.roll_back(connection, 3, "test", "worse still") == "v1"
        assert version_rows.champion(connection).verdict == {"reason": "é"}
        with pytest.raises(ConflictError):
            version_rows.roll_back(connection, 4, "test", "nothing left")
        with pytest.raises(NotFoundError):
            version_rows.deploy(connection, "v9", 5, "test", "no such version")
        version_rows.set_state(connection, "v2", "deleted")
        with pytest.raises(ConflictError):
            version_rows.deploy(connection, "v2", 5, "test", "deleted")
