"""API keys as rows."""

import hashlib
import secrets

import pytest

from recsys.errors import InputError, NotFoundError
from recsys.storage.entities import (
    key_rows,
)


def test_a_key_opens_until_it_is_revoked_and_its_secret_is_not_stored(database, monkeypatch):
    compared, compare = [], secrets.compare_digest
    monkeypatch.setattr(
        secrets, "compare_digest", lambda *two: compared.append(two) or compare(*two)
    )
    with database.begin() as connection:
        key = key_rows.create_key(connection, "shop", ["read", "write"], 1)
        found = key_rows.find_key(connection, key)
        assert found.scopes == {"read", "write"}
        assert key_rows.find_key(connection, key[:-1] + ("a" if key[-1] != "a" else "b")) is None
        assert key_rows.find_key(connection, "nonsense") is None
        stored = connection.exec_driver_sql("SELECT * FROM api_keys").one()
        secret = key.split("_", 2)[2]
        digest = hashlib.sha256(secret.encode()).hexdigest()
        assert len(secret) == 43  # 256 bits
        assert secret not in str(stored)
        assert stored.secret_sha256 == digest
        assert compared[0] == (digest, digest)  # in constant time: a right one,
        assert compared[1][1] == digest != compared[1][0]  # a wrong one,
        key_rows.find_key(connection, key.replace(found.key_id, "0" * 12))
        assert compared[2] == (digest, "0" * 64)  # and one whose id is not known
        key_rows.revoke_key(connection, found.key_id, 2)
        assert key_rows.find_key(connection, key) is None
        with pytest.raises(NotFoundError):
            key_rows.revoke_key(connection, found.key_id, 3)
        with pytest.raises(InputError, match="scopes"):
            key_rows.create_key(connection, "x", ["root"], 1)
