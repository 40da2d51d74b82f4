"""Versions as files: what comes back is what went in, or nothing does."""

import hashlib
import os
import pickle
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import orjson
import pytest

from recsys.errors import ModelFileError
from recsys.events.sequences import Histories
from recsys.models.batch_ranking import scores
from recsys.models.blend import BLEND, Blend
from recsys.models.lstm.trainer import Trainer
from recsys.models.ranking import best, rankings
from recsys.registry import (
    delete_version,
    folder_bytes,
    read_version,
    sweep_parts,
    version_files,
    write_version,
)

NOW = datetime(2025, 3, 2, 9, 30, tzinfo=UTC)
HISTORIES = Histories.from_lists([[2, 3, 4], [9], [30, 2]])


@pytest.fixture
def written(tiny_shop, tmp_path):
    digest, size = write_version(tmp_path, tiny_shop.bundle)
    folder = tmp_path / tiny_shop.bundle.version
    assert size == sum(file.stat().st_size for file in folder.iterdir())
    return tmp_path, tiny_shop.bundle, digest


def test_saved_and_loaded_every_ranking_scores_the_same(written):
    root, bundle, digest = written
    loaded = read_version(root, bundle.version, digest)
    assert loaded.vocabulary == bundle.vocabulary
    assert (loaded.event_types, loaded.repeats) == (bundle.event_types, bundle.repeats)
    assert set(rankings(loaded)) == set(rankings(bundle))
    for name in rankings(bundle):
        assert np.array_equal(scores(loaded, HISTORIES, name), scores(bundle, HISTORIES, name))


def test_files_call_every_network_lstm_and_memory_by_its_body(tiny_shop, tmp_path):
    shop = tiny_shop.bundle
    model = tiny_shop.settings.model.model_copy(update={"network": "gru"})
    rows = len(shop.vocabulary)
    network = Trainer(
        rows, len(shop.event_types) + 1, shop.max_length, model, tiny_shop.settings.training
    ).network.eval()
    blends = {
        "gru": Blend({"gru": 1.0}),
        BLEND: Blend({"gru": 0.7, "session_knn": 0.3}),
    }
    bundle = replace(shop, network=network, blends=blends, ranking="gru")
    digest, _ = write_version(tmp_path, bundle)
    manifest = orjson.loads((tmp_path / bundle.version / "manifest.json").read_bytes())
    assert manifest["ranking"] == "lstm" and manifest["network"]["body"] == "gru"
    assert {name: set(one["weights"]) for name, one in manifest["blends"].items()} == {
        "lstm": {"lstm"},
        "blend": {"lstm", "session_knn"},
    }
    loaded = read_version(tmp_path, bundle.version, digest)
    assert (loaded.ranking, loaded.network_name, loaded.blends) == ("gru", "gru", blends)
    assert "lstm" not in rankings(loaded)
    history = Histories.from_lists([[2, 3, 4]])
    assert {source for _, _, source in best(loaded, history, 5)} <= {"gru", "copy"}
    mixed = replace(loaded, ranking=BLEND)
    sources = {source for _, _, source in best(mixed, history, rows)}
    assert "gru" in sources and sources <= {"gru", "session_knn", "copy"}


def test_padding_and_unknown_are_never_ranked(written):
    _, bundle, _ = written
    for name in rankings(bundle):
        assert np.isneginf(scores(bundle, HISTORIES, name)[:, :2]).all()


FILES = ["network.safetensors", "rankers.safetensors", "vocabulary.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "flip", "absent", "pickle", "longer", "empty"])
def test_a_damaged_or_foreign_file_is_refused_by_name(written, name, damage):
    root, bundle, digest = written
    path = root / bundle.version / name
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "absent":
        path.unlink()
    elif damage == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1.0]}))
    elif damage == "longer":
        path.write_bytes(data + b"x")
    else:
        path.write_bytes(b"")
    with pytest.raises(ModelFileError, match=name.replace(".", r"\.")) as caught:
        read_version(root, bundle.version, digest)
    assert str(root) not in str(caught.value)


def rewrite(root, bundle, **changes):
    """The manifest with some keys changed, and its new hash."""
    path = root / bundle.version / "manifest.json"
    data = orjson.dumps({**orjson.loads(path.read_bytes()), **changes})
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"rankers": ["telepathy"]},
        {"network": {"rows": 5}},
        {"repeats": {}},
        {"max_length": "x"},
        {"files": {"../../secret": {"sha256": "", "bytes": 1}}},
    ],
)
def test_files_that_do_not_fit_together_are_refused(written, changes):
    root, bundle, _ = written
    digest = rewrite(root, bundle, **changes)
    with pytest.raises(ModelFileError):
        read_version(root, bundle.version, digest)


def test_a_network_of_another_vocabulary_is_refused(written):
    root, bundle, _ = written
    path = root / bundle.version / "vocabulary.json"
    words = {"item_ids": bundle.vocabulary.item_ids[:-1], "event_types": bundle.event_types}
    path.write_bytes(orjson.dumps(words))
    files = orjson.loads((root / bundle.version / "manifest.json").read_bytes())["files"]
    data = path.read_bytes()
    files["vocabulary.json"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    digest = rewrite(root, bundle, files=files)
    with pytest.raises(ModelFileError, match="vocabulary"):
        read_version(root, bundle.version, digest)


@pytest.mark.parametrize("version", ["../x", "", "20250101-000000-zzzzzz", "a/b"])
def test_a_version_name_cannot_leave_the_folder(tmp_path, version):
    with pytest.raises(ModelFileError):
        read_version(tmp_path, version, "0" * 64)


def test_what_a_killed_process_left_is_swept(tmp_path, tiny_shop):
    dead = 999_999_999
    parts = {
        pid: [tmp_path / f".20250101-00000{n}-aaaaaa.{pid}.abcd.part" for n in range(3)]
        for pid in (dead, os.getpid())
    }
    for made in parts.values():
        for path, hours in zip(made, (0, 2, 48), strict=True):
            path.mkdir()
            os.utime(path, (NOW.timestamp() - hours * 3_600,) * 2)
    assert sweep_parts(tmp_path, NOW) == 3
    left = [parts[dead][0], *parts[os.getpid()][:2]]
    assert set(tmp_path.iterdir()) == set(left)  # young, or a process may be at it
    for path in left:
        path.rmdir()
    write_version(tmp_path, tiny_shop.bundle)
    assert [path.name for path in tmp_path.iterdir()] == [tiny_shop.bundle.version]
    delete_version(tmp_path, tiny_shop.bundle.version)
    assert list(tmp_path.iterdir()) == []


def test_files_that_go_once_they_were_checked_are_refused_by_name(written, monkeypatch):
    root, bundle, digest = written
    checked = version_files.check_file

    def then_deleted(folder, version, name, manifest):
        checked(folder, version, name, manifest)
        if name == list(manifest["files"])[-1]:
            delete_version(root, version)

    monkeypatch.setattr(version_files, "check_file", then_deleted)
    with pytest.raises(ModelFileError, match=f"{bundle.version}: its files cannot be read"):
        read_version(root, bundle.version, digest)


def test_a_folder_is_measured_while_folders_come_and_go(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"x" * 1_000)
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            for n in range(20):
                (tmp_path / f"{n}" / "inner").mkdir(parents=True)
            for n in range(20):
                shutil.rmtree(tmp_path / f"{n}")

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert {folder_bytes(tmp_path)[0] for _ in range(300)} == {1_000}
    finally:
        stop.set()
        other.join()


def test_a_version_is_never_written_over(tmp_path, tiny_shop):
    write_version(tmp_path, tiny_shop.bundle)
    with pytest.raises(OSError, match="not empty"):
        write_version(tmp_path, replace(tiny_shop.bundle, ranking="popular"))
    assert len(list(tmp_path.iterdir())) == 1
