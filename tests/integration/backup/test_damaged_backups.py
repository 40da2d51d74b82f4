"""Files that are no backup of this service are refused by name, and nothing is changed."""

import os
import random
import zipfile

import pytest

from recsys.errors import BackupError
from recsys.ops.backup import (
    MANIFEST,
    make_backup,
    verify_backup,
)
from recsys.ops.backup import restore_backup as restore
from recsys.storage.schema.tables import metadata
from tests.integration.backup.conftest import NOW, rewritten, rows

# SQLite's listing says too little of an index on an expression.
pytestmark = pytest.mark.filterwarnings("ignore:.*expression-based index")


def test_a_restore_that_fails_changes_nothing(filled, tmp_path):
    database, settings = filled
    path, _ = make_backup(settings, database, tmp_path / "kept.zip", NOW)
    before = {name: rows(database, name) for name in metadata.tables}
    changed = tmp_path / "changed.zip"
    rewritten(path, changed, lambda said: said["rows"].update(api_keys=7))
    with pytest.raises(BackupError, match="api_keys"):
        restore(settings, database, changed, NOW, replace=True)
    assert {name: rows(database, name) for name in metadata.tables} == before


def test_a_damaged_backup_is_refused_by_name(kept, tmp_path):
    data, rng = kept.read_bytes(), random.Random(1)
    broken = tmp_path / "broken.zip"
    whole = verify_backup(kept)
    for number in range(150):
        changed = bytearray(data)
        if number % 3 == 0:
            changed = changed[: rng.randrange(len(changed))]
        else:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        broken.write_bytes(changed)
        try:
            found = verify_backup(broken)
        except BackupError as error:
            found, reason = None, str(error)
        # A bit of the container may say nothing: all that is held is whole then.
        assert found == whole or (found is None and "broken.zip" in reason)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said.update(format=2), "format 2"),
        (lambda said: said.update(kind="other"), "not a backup of recsys"),
        (lambda said: said.update(revision="9999"), "newer release"),
        (lambda said: said.pop("rows"), "cannot be read"),
        (lambda said: said.update(rows={"events": "x"}), "cannot be read"),
        (lambda said: said["members"].update({"tables/more.parquet": {}}), "cannot be read"),
        (
            lambda said: said["members"].update({"tables/m.parquet": {"bytes": 0, "sha256": ""}}),
            "members",
        ),
        (lambda said: said["members"]["tables/events.parquet"].update(sha256="0"), "events"),
    ],
)
def test_a_foreign_or_newer_backup_is_refused_by_name(kept, tmp_path, change, words):
    to = tmp_path / "foreign.zip"
    rewritten(kept, to, change)
    with pytest.raises(BackupError, match=words) as caught:
        verify_backup(to)
    assert "foreign.zip" in str(caught.value)


@pytest.mark.parametrize("name", ["../../evil", "models/../../evil", "/etc/evil", "tables/../x"])
def test_a_name_that_leaves_the_folder_is_refused(kept, tmp_path, name):
    to = tmp_path / "odd.zip"
    said = {
        "bytes": 1,
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    }
    rewritten(kept, to, lambda manifest: manifest["members"].update({name: said}))
    with zipfile.ZipFile(to, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(BackupError, match="names"):
        verify_backup(to)


def test_other_files_are_no_backups(tmp_path):
    for data in (b"", b"PK\x05\x06" + bytes(18), b"SQLite format 3\0", os.urandom(5_000)):
        path = tmp_path / "x.zip"
        path.write_bytes(data)
        with pytest.raises(BackupError, match=r"x\.zip"):
            verify_backup(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(MANIFEST, b"0" * 10_000_000)
    with pytest.raises(BackupError, match="packed otherwise"):
        verify_backup(path)
    with pytest.raises(BackupError, match="cannot be read"):
        verify_backup(tmp_path / "absent.zip")
