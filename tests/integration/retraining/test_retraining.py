"""Retraining that can be left alone: what goes live, what does not, and what a broken run leaves."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from recsys import pipeline
from recsys.commands import deployments
from recsys.errors import DataCheckError, LostLeaseError
from recsys.events.times import HOUR_US, to_us
from recsys.ops import upkeep
from recsys.ops.guard import guard_champion
from recsys.registry import load_champion
from recsys.storage.entities import job_rows, version_rows
from recsys.storage.entities.answer_count_rows import EMPTY, TRUSTED, WHOLE
from recsys.storage.entities.audit_rows import CLI
from recsys.storage.schema.tables import answer_counts
from recsys.training.run import Run
from tests.conftest import postgresql_in_drills
from tests.integration.retraining.conftest import NOW


def champion(database):
    with database.connect() as connection:
        return version_rows.champion(connection)


def change_settings(settings, **sections):
    return settings.model_copy(
        update={
            name: getattr(settings, name).model_copy(update=values)
            for name, values in sections.items()
        }
    )


@postgresql_in_drills
def test_a_worse_candidate_is_refused_and_a_better_one_promoted(
    database, settings, load, monkeypatch
):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    assert first.promoted
    load(0.6, 1.0)

    real = pipeline.fit_model

    def learn_shuffled(log, *arguments, **more):
        """The same log with its items dealt out anew: nothing to learn but how often each comes."""
        sequences = log.sequences
        items = np.random.default_rng(0).permutation(sequences.items)
        return real(replace(log, sequences=replace(sequences, items=items)), *arguments, **more)

    monkeypatch.setattr(pipeline, "fit_model", learn_shuffled)
    worse = pipeline.train(settings, database, Run(NOW + timedelta(hours=1)))
    monkeypatch.undo()
    assert not worse.promoted
    assert "may be as low as -0." in worse.verdict.reason
    assert worse.verdict.numbers.versus_champion["mrr@20"]["high"] < 0
    assert champion(database).version == first.version
    with database.connect() as connection:
        row = version_rows.get_version(connection, worse.version)
    assert row.state == "refused"
    assert row.verdict["reason"] == worse.verdict.reason

    weak = change_settings(settings, model={"width": 4}, training={"epochs": 1})
    monkeypatch.setattr(pipeline, "fit_model", learn_shuffled)
    forced = pipeline.train(weak, database, Run(NOW + timedelta(hours=2)), force=True)
    monkeypatch.undo()
    assert champion(database).version == forced.version
    with database.connect() as connection:
        latest = version_rows.list_deployments(connection, 1)[0]
    assert latest["reason"].startswith("forced; the gate said: refused")

    better = pipeline.train(settings, database, Run(NOW + timedelta(hours=3)))
    assert better.promoted, better.verdict.reason
    assert champion(database).version == better.version
    assert all(check.passed for check in better.facts.checks)


@postgresql_in_drills
def test_nothing_is_published_by_a_run_that_may_not(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))

    def fence(connection):
        raise LostLeaseError("another scheduler leads by now")

    with pytest.raises(LostLeaseError):
        pipeline.train(settings, database, Run(NOW + timedelta(hours=1), fence=fence))
    assert champion(database).version == first.version
    with database.connect() as connection:
        assert len(version_rows.list_versions(connection)) == 1
    # The files that the refused run wrote go once they are a day old.
    assert upkeep.sweep_versions(settings, database, datetime.now(UTC)) == 0
    later = datetime.now(UTC) + timedelta(days=2)
    assert upkeep.sweep_versions(settings, database, later) == 1
    assert (settings.registry.path / first.version).is_dir()
    with database.begin() as connection:  # what serves stays, whatever its row says
        version_rows.set_state(connection, first.version, "deleted")
    assert upkeep.sweep_versions(settings, database, later) == 0


def test_files_of_a_deleted_version_go_though_the_pruning_was_killed(
    database, tiny_shop, publish, settings_for, tmp_path
):
    settings = settings_for(tmp_path)
    gone, *kept = (
        publish(tiny_shop, database, tmp_path, f"2099010{n}-000000-aaaaaa") for n in (1, 2, 3)
    )
    with database.begin() as connection:
        version_rows.set_state(connection, gone, "deleted")
    later = datetime.now(UTC) + timedelta(days=2)
    assert upkeep.sweep_versions(settings, database, later) == 1
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set(kept)


@postgresql_in_drills
def test_a_champion_that_changed_meanwhile_is_not_overwritten(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))

    def meanwhile(connection):
        version_rows.deploy(connection, first.version, 1, "someone", "again")

    second = pipeline.train(settings, database, Run(NOW + timedelta(hours=1)), promote=False)
    deployments.promote(database, CLI, second.version, "by hand", to_us(NOW))

    def other(connection):
        version_rows.deploy(connection, first.version, 1, "someone", "meanwhile")

    eager = change_settings(settings, promotion={"min_positions": 1, "margin": 1.0})
    said = []
    third = pipeline.train(
        eager, database, Run(NOW + timedelta(hours=2), fence=other, say=said.append)
    )
    if third.verdict.promote:
        assert "not promoted: another version became champion while it was trained" in said
    assert not third.promoted
    assert champion(database).version == first.version


def test_a_failed_check_stops_the_run_and_leaves_the_champion(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    strict = change_settings(settings, training={"max_gap_days": 0.0001})
    said = []
    with pytest.raises(DataCheckError, match="longest silence, days"):
        pipeline.train(strict, database, Run(NOW, say=said.append))
    assert any(line.startswith("FAILED: longest silence") for line in said)
    assert champion(database).version == first.version


def put_counts(database, champion_version, control, clicks, empty=0):
    rows = [
        {
            "hour_us": to_us(NOW) + hour * HOUR_US,
            "model_version": version,
            "arm": arm,
            "scenario": "",
            "source": source,
            "shown": shown,
            "clicks": clicked,
        }
        for hour in range(1, 9)
        for version, arm, source, shown, clicked in (
            (champion_version, "champion", WHOLE, 2_000, clicks),
            (champion_version, "champion", TRUSTED, 0, clicks),
            (champion_version, "champion", EMPTY, empty, 0),
            (control, "control", WHOLE, 200, 20),
            (control, "control", TRUSTED, 0, 20),
        )
    ]
    with database.begin() as connection:
        connection.execute(answer_counts.insert(), rows)


@pytest.mark.parametrize(
    ("clicks", "empty", "reason"),
    [(60, 0, "click-through minus the control arm's"), (200, 900, "answers were empty")],
)
def test_a_champion_that_fails_in_service_is_rolled_back(
    database, settings, load, clicks, empty, reason
):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW - timedelta(days=1)))
    second = pipeline.train(settings, database, Run(NOW), promote=False)
    deployments.promote(database, CLI, second.version, "by hand", to_us(NOW))
    later = NOW + timedelta(hours=10)
    assert guard_champion(settings, database, later) is None
    put_counts(database, second.version, first.version, clicks, empty)
    assert reason in guard_champion(settings, database, later)
    assert champion(database).version == first.version
    with database.connect() as connection:
        latest = version_rows.list_deployments(connection, 1)[0]
    assert latest["deployed_by"] == "guard"
    assert guard_champion(settings, database, later) is None  # once


def test_the_guard_can_be_switched_off_and_needs_somewhere_to_go(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    put_counts(database, first.version, "older", 60)
    later = NOW + timedelta(hours=10)
    assert guard_champion(settings, database, later) is None
    off = change_settings(settings, promotion={"auto_rollback": False})
    assert guard_champion(off, database, later) is None
    assert champion(database).version == first.version


def test_tuned_settings_stay_with_the_champion_until_configured_anew(database, settings, load):
    load(0.0, 0.6)
    best = {"model": {"width": 12}, "training": {"epochs": 2}}
    first = pipeline.train(settings, database, Run(NOW), tuned=best)
    assert first.promoted
    assert first.facts.settings["model"]["width"] == 12
    second = pipeline.train(settings, database, Run(NOW + timedelta(hours=1)), promote=False)
    assert second.facts.settings["model"]["width"] == 12
    anew = change_settings(settings, model={"width": 20})
    third = pipeline.train(anew, database, Run(NOW + timedelta(hours=2)), promote=False)
    assert third.facts.settings["model"]["width"] == 20
    assert third.facts.settings["training"]["epochs"] == 2


def run_limited(settings, database_url, tmp_path, run_id, limit):
    environment = {
        **os.environ,
        "RECSYS_DATABASE__URL": database_url,
        "RECSYS_REGISTRY__PATH": str(settings.registry.path),
        "RECSYS_TRAINING__THREADS": "1",
        "RECSYS_TRAINING__EPOCHS": "1",
    }
    start = "from jobs import runs, __main__; runs.OUTCOME_SECONDS = 1.0; "
    start += f"raise SystemExit(__main__.main(['run', '{run_id}']))"
    return subprocess.run(
        [sys.executable, "-c", start],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_a_full_disk_fails_the_run_and_nothing_else(
    database, database_url, settings, load, tmp_path
):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "retrain", "cli", 1)
    done = run_limited(settings, database_url, tmp_path, run_id, 40_000)
    assert done.returncode == 1
    with database.connect() as connection:
        run = job_rows.get_run(connection, run_id)
        assert len(version_rows.list_versions(connection)) == 1
    if run.state == "failed":
        assert "File too large" in run.error
    else:  # SQLite's own file could not grow either: its scheduler marks the run
        assert database.dialect == "sqlite"
        assert "disk" in done.stderr
    assert champion(database).version == first.version
    assert load_champion(settings.registry.path, database, print) is not None
    assert list(settings.registry.path.glob(".*.part")) == []


def test_a_damaged_sequence_file_is_built_anew_and_training_goes_on(database, settings, load):
    load(0.0, 0.6)
    first = pipeline.train(settings, database, Run(NOW))
    folder = settings.registry.path / ".sequences"
    path = next(folder.glob("segment-*/items.npy"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    said = []
    second = pipeline.train(
        settings, database, Run(NOW + timedelta(hours=1), say=said.append), promote=False
    )
    assert any("items was changed; the files are built anew" in line for line in said)
    assert second.facts.metrics.keys() >= first.facts.metrics.keys()


def test_without_room_for_sequence_files_the_database_is_read(database, settings, load):
    load(0.0, 0.6)
    settings.registry.path.mkdir(parents=True)
    (settings.registry.path / ".sequences").write_text("a file where a folder should be")
    said = []
    frame = pipeline.events_so_far(settings, database, NOW, said.append)
    assert "the database is read instead" in said[-1]
    assert len(frame) > 1_000
