"""The models of a process: what cannot be loaded is said once and read again rarely."""

import threading
import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from recsys.registry import delete_version, write_version
from recsys.serving import active_model
from recsys.serving.active_model import REFUSED_LOOKS, ActiveModel

OLDER = "20200101-000000-aaaaaa"


@pytest.mark.parametrize("refused", ["champion", "control"])
def test_a_version_that_cannot_be_loaded_is_read_rarely_and_told_of_once(
    tiny_shop, tmp_path, monkeypatch, refused
):
    older = replace(tiny_shop.bundle, version=OLDER)
    names = [(one.version, write_version(tmp_path, one)[0]) for one in (tiny_shop.bundle, older)]
    bad = names[refused == "control"][0]
    delete_version(tmp_path, bad)
    reads, now = [], [0.0]
    read = active_model.read_version

    def counted(root, version, *more):
        reads.append(version)
        return read(root, version, *more)

    monkeypatch.setattr(active_model, "read_version", counted)
    active = ActiveModel(tmp_path, 1.0, lambda: now[0], control=True)
    with capture_logs() as logs:
        for _ in range(2 * REFUSED_LOOKS + 1):
            active.current(lambda: names)
            now[0] += 1.0
    assert reads.count(bad) == 3
    assert reads.count(names[refused == "champion"][0]) == 1
    served = active.models
    assert (served.champion.version, served.control) == (names[refused == "champion"][0], None)
    assert [one["version"] for one in logs if one["log_level"] == "error"] == [bad]
    assert active.refused == (bad if refused == "champion" else None)
    write_version(tmp_path, tiny_shop.bundle if refused == "champion" else older)
    now[0] += REFUSED_LOOKS
    models = active.current(lambda: names)
    assert [models.champion.version, models.control.version] == [name for name, _ in names]
    assert active.refused is None


def test_the_thread_that_follows_tells_of_other_models(tiny_shop, tmp_path):
    bundle = tiny_shop.bundle
    digest, _ = write_version(tmp_path, bundle)
    active = ActiveModel(tmp_path, 0.01, time.monotonic)
    stop, looks, changes = threading.Event(), [], []

    def look():
        looks.append(1)
        if len(looks) == 3:
            stop.set()
        return [(bundle.version, digest)]

    active.follow(look, stop, lambda: changes.append(active.models.champion.version))
    assert changes == [bundle.version]
