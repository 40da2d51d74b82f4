"""Accounts and keys: what is slow keeps nobody from writing."""

import pytest

from recsys.commands import credentials
from recsys.errors import ConflictError, InputError
from recsys.storage.entities import account_rows, key_rows, passwords
from recsys.storage.entities.audit_rows import CLI


@pytest.fixture
def written(monkeypatch, database):
    """Each password's hash, while which another connection has written a row."""
    hashes = []

    def scrypt(*_):
        with database.begin() as connection:  # on SQLite refused while another may write
            key_rows.create_key(connection, f"key {len(hashes)}", ["read"], 1)
        hashes.append("hash")
        return b"hash"

    monkeypatch.setattr(passwords, "_scrypt", scrypt)
    return hashes


def test_others_write_while_a_password_is_hashed(database, written):
    credentials.create_first(database, CLI, 1)
    credentials.create_account(database, CLI, "ada", "a long password", "viewer", 1)
    credentials.set_password(database, CLI, "ada", "another password", 1)
    assert len(written) == 3
    with database.connect() as connection:
        assert {row.name for row in account_rows.list_accounts(connection)} == {"admin", "ada"}


def test_what_no_account_can_be_is_refused_before_anything_is_hashed(database, written):
    for name, password, role in (
        ("-", "a long password", "viewer"),
        ("ada", "a long password", "emperor"),
        ("ada", "short", "viewer"),
    ):
        with pytest.raises(InputError):
            credentials.create_account(database, CLI, name, password, role, 1)
    assert not written
    credentials.create_account(database, CLI, "ada", "a long password", "viewer", 1)
    with pytest.raises(ConflictError, match="already"):
        credentials.create_account(database, CLI, "ada", "a long password", "viewer", 1)
