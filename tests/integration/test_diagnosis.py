"""The doctor finds what is wrong, one thing at a time, and says what to do."""

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from recsys.events.fields import Event
from recsys.events.times import HOUR_US, to_us
from recsys.ops import machine_checks
from recsys.ops.diagnosis import examine
from recsys.storage.engine import database_health
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    event_rows,
    job_rows,
    lease_rows,
    live_quality_rows,
    schedule_rows,
)
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.storage.schema import migrate

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def healthy(database, tmp_path, tiny_shop, publish, settings_for):
    publish(tiny_shop, database, tmp_path / "models")
    settings = settings_for(tmp_path / "models")
    with database.begin() as connection:
        seen = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
        lease_rows.take_lease(connection, seen, "here:1:x", to_us(NOW))
    return settings, database


def states(settings, database, config=None, now=NOW):
    """The worst state of each check."""
    found = {}
    for one in examine(settings, database, config, now):
        assert one.advice or one.state == "ok", one
        found[one.check] = max(
            one.state, found.get(one.check, ""), key=["", "ok", "warn", "fail"].index
        )
    return found


def test_a_healthy_installation_has_nothing_that_fails(healthy):
    found = states(*healthy)
    assert "fail" not in found.values()
    for check in (
        "database",
        "schema",
        "indexes",
        "clock",
        "model",
        "scheduler",
        "registry",
        "disk",
    ):
        assert found[check] == "ok", check


def test_it_changes_nothing(database, tmp_path, settings_for):
    registry = tmp_path / "not" / "there"
    assert states(settings_for(registry), database)["registry"] == "ok"
    assert not registry.parent.exists()
    registry.parent.write_text("a file")
    assert states(settings_for(registry), database)["registry"] == "fail"
    absent = Database(f"sqlite:///{tmp_path}/absent.db")
    assert states(settings_for(tmp_path), absent)["schema"] == "fail"
    assert not absent.file.exists()


def test_little_room_is_found_where_backups_lie_too(healthy, tmp_path, monkeypatch):
    settings, database = healthy
    schedule = {"backup": "0 1 * * *", "backup_path": tmp_path / "backups"}
    chosen = settings.model_copy(update={"schedule": settings.schedule.model_copy(update=schedule)})
    assert states(chosen, database)["disk"] == "ok"
    monkeypatch.setattr(machine_checks, "LITTLE_BYTES", 2**62)
    places = {"registry", "backups"} | ({"database"} if database.file else set())
    low = [one for one in examine(chosen, database, None, NOW) if one.check == "disk"]
    assert {one.found.rpartition(" ")[2] for one in low} == places
    assert {one.state for one in low} == {"warn"}
    assert len([one for one in examine(settings, database, None, NOW) if one.check == "disk"]) == (
        len(places) - 1
    )
    monkeypatch.setattr(machine_checks, "TOO_LITTLE_BYTES", 2**62)
    assert states(settings, database)["disk"] == "fail"


def test_another_clock_and_too_few_connections_are_found(healthy, monkeypatch):
    settings, database = healthy
    if database.dialect == "sqlite":  # it has neither
        assert states(settings, database)["clock"] == "ok"
        assert "connections" not in states(settings, database)
        return
    for workers, state in ((1, "ok"), (256, "warn")):
        serving = settings.serving.model_copy(update={"workers": workers, "threads": 1})
        chosen = settings.model_copy(update={"serving": serving})
        assert states(chosen, database)["connections"] == state
    for seconds, state in ((10.0, "warn"), (-10.0, "warn"), (120.0, "fail"), (-120.0, "fail")):
        clock = SimpleNamespace(time=lambda seconds=seconds: time.time() + seconds)
        monkeypatch.setattr(database_health, "time", clock)
        found = [one for one in examine(settings, database, None, NOW) if one.check == "clock"]
        assert [one.state for one in found] == [state]
        assert ("behind" if seconds > 0 else "ahead") in found[0].found


def test_a_missing_index_is_found(healthy):
    settings, database = healthy
    with database.begin() as connection:
        connection.execute(text("DROP INDEX ix_events_session"))
    findings = {one.check: one for one in examine(settings, database, None, NOW)}
    assert findings["indexes"].state == "fail"
    assert "session" in findings["indexes"].found
    assert "user" not in findings["indexes"].found


def test_a_damaged_and_an_old_model_are_found(healthy, tmp_path):
    settings, database = healthy
    assert states(settings, database, now=NOW + timedelta(days=30))["model"] == "warn"
    next((tmp_path / "models").glob("*/network.safetensors")).write_bytes(b"x")
    assert states(settings, database)["model"] == "fail"


def test_a_silent_scheduler_and_failed_and_paused_jobs_are_found(healthy):
    settings, database = healthy
    with database.begin() as connection:
        run_id = job_rows.request_run(connection, "retrain", "cli", to_us(NOW))
        job_rows.finish_run(connection, run_id, "failed", to_us(NOW), None, "no")
        schedule_rows.put_schedule(connection, "retrain", "0 3 * * *", None, to_us(NOW))
        connection.execute(text("UPDATE job_schedules SET paused = true"))
    found = states(settings, database, now=NOW + timedelta(minutes=10))
    assert (found["scheduler"], found["runs"], found["schedules"]) == ("fail", "warn", "warn")
    with database.begin() as connection:
        lease_rows.release_lease(connection, lease_rows.SCHEDULER, 1)
    assert states(settings, database)["scheduler"] == "warn"


def test_popular_items_that_would_be_better_are_found(healthy):
    settings, database = healthy
    assert states(*healthy)["live quality"] == "ok"
    for popular, state in ((99, "ok"), (101, "warn")):
        with database.begin() as connection:
            at_us = to_us(NOW) - HOUR_US
            found = LiveQuality(at_us, 300, 20, 100, 50.0, 90, 45.0, popular, 30.0)
            live_quality_rows.put_hour(connection, found)
        (one,) = [o for o in examine(settings, database, None, NOW) if o.check == "live quality"]
        assert one.state == state and "recall@20 0.333, MRR@20 0.167" in one.found
        assert "300 positions" in one.found


def test_an_event_of_the_future_and_a_quarantine_are_found(healthy):
    settings, database = healthy
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (user_bucket, user_id, item_id, event_type, timestamp_us,"
                " event_id, received_at_us) VALUES (1, 'u', 'i', 'view', 1, 'e', :at)"
            ),
            {"at": to_us(NOW + timedelta(hours=1))},
        )
        connection.execute(
            text(
                "INSERT INTO rejected_events (source, position, reason, raw, raw_hash,"
                " rejected_at_us) VALUES ('f', 0, 'r', '{}', 'h', 1)"
            )
        )
    found = states(settings, database)
    assert (found["clock"], found["quarantine"]) == ("fail", "warn")


def test_types_that_no_event_is_of_are_found(healthy):
    settings, database = healthy
    assert "event types" not in states(settings, database)  # there are no events
    event = Event("u", None, "i", "view", to_us(NOW), "e1")
    with database.begin() as connection:
        event_rows.insert_events(connection, [event], to_us(NOW))
    sequences = settings.sequences.model_copy(update={"input_event_types": ("veiw",)})
    chosen = settings.model_copy(update={"sequences": sequences})
    told = [one for one in examine(chosen, database, None, NOW) if one.check == "event types"]
    assert [one.state for one in told] == ["warn", "warn"]
    assert "serving.exclude_seen" in told[0].found and "view" in told[0].advice
    assert told[1].found == "sequences.input_event_types names types that no event has: veiw"
    with database.begin() as connection:
        bought = replace(event, event_type="transaction", event_id="e2")
        event_rows.insert_events(connection, [bought], to_us(NOW))
    assert "event types" not in states(settings, database)
    serving = settings.serving.model_copy(update={"exclude_seen": "transaction,bougth"})
    misspelt = settings.model_copy(update={"serving": serving})
    told = [one for one in examine(misspelt, database, None, NOW) if one.check == "event types"]
    assert told[0].found == "serving.exclude_seen names types that no event has: bougth"


def test_an_open_service_and_open_secrets_are_found(healthy, tmp_path, settings_for):
    _, database = healthy
    public = settings_for(tmp_path / "models", auth={"enabled": False}, host="0.0.0.0")
    assert states(public, database)["access"] == "fail"
    config, secret = tmp_path / "config.toml", tmp_path / "url"
    secret.write_text("postgresql://u:secret@h/d")
    config.write_text(f"[database]\nurl = 'file:{secret}'\n")
    for path in (config, secret):
        path.chmod(0o644)
    found = examine(public, database, config, NOW)
    assert [one.found for one in found if one.state == "fail" and one.check == "secrets"]
    assert "u:secret" not in repr(found)
    secret.chmod(0o600)
    assert states(public, database, config)["secrets"] == "ok"
    config.write_text("[database]\nurl = 'postgresql://u:secret@h/d'\n")
    found = examine(public, database, config, NOW)
    assert [one for one in found if one.state == "fail" and one.check == "secrets"]
    assert "u:secret" not in repr(found)


def test_files_that_everybody_may_read_are_found(tmp_path, settings_for, monkeypatch):
    # Folders of the tests are closed to others; that of this one counts as the root.
    monkeypatch.setattr(machine_checks, "_is_reached", lambda path: _reached_below(tmp_path, path))
    models, database = tmp_path / "models", Database(f"sqlite:///{tmp_path}/data/recsys.db")
    models.mkdir()
    models.chmod(0o755)
    migrate.upgrade(database)
    settings = settings_for(models)
    found = {one.check: one for one in examine(settings, database, None, NOW)}["privacy"]
    assert (found.state, found.advice) == ("warn", f"chmod -R o= {models}")
    models.chmod(0o700)
    assert states(settings, database)["privacy"] == "ok"
    database.file.chmod(0o644)
    assert states(settings, database)["privacy"] == "ok"  # in a folder of its owner's alone
    database.file.parent.chmod(0o755)
    assert states(settings, database)["privacy"] == "warn"
    database.close()


def _reached_below(root, path):
    inside = [folder for folder in path.resolve().parents if folder.is_relative_to(root)]
    return all(folder.stat().st_mode & 0o001 for folder in inside if folder != root)


def test_backups_that_no_longer_come_are_found(healthy, tmp_path):
    settings, database = healthy
    schedule = settings.schedule.model_copy(update={"backup": "0 1 * * *", "backup_path": tmp_path})
    chosen = settings.model_copy(update={"schedule": schedule})
    now = datetime.now(UTC)
    assert states(chosen, database, now=now)["backups"] == "warn"
    (tmp_path / "recsys-20250301-010000.zip").write_bytes(b"x")
    assert states(chosen, database, now=now)["backups"] == "ok"
    old = time.time() - 10 * 86_400
    os.utime(tmp_path / "recsys-20250301-010000.zip", (old, old))
    assert states(chosen, database, now=now)["backups"] == "warn"


def test_other_schemas_and_an_absent_database_are_found(empty_url, tmp_path, settings_for):
    settings, database = settings_for(tmp_path / "models"), Database(empty_url)
    assert states(settings, database)["schema"] == "fail"
    migrate.upgrade(database, "0002")
    assert states(settings, database)["schema"] == "fail"
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    last = examine(settings, database, None, NOW)[-1]
    assert (last.check, last.state) == ("schema", "fail")
    assert "newer" in last.found
    database.close()
    away = Database("postgresql://u:secret@127.0.0.1:1/x", busy_timeout_seconds=0.1)
    last = examine(settings, away, None, NOW)[-1]
    assert (last.check, last.state) == ("database", "fail")
    assert "secret" not in last.found


def test_the_command_says_it_as_a_table_and_as_json(tmp_path, capsys, monkeypatch):
    from recsys.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*more):
        monkeypatch.setattr("sys.argv", ["recsys", "doctor", *more])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().out

    status, out = run()
    assert status == 1
    assert "recsys db upgrade" in out
    database = Database(f"sqlite:///{tmp_path}/var/recsys.db")
    migrate.upgrade(database)
    database.close()
    status, out = run("--json")
    found = json.loads(out.splitlines()[-1])
    assert (status or 0, found["fail"]) == (0, 0)
    assert {"check", "state", "found", "advice"} == set(found["findings"][0])
    (tmp_path / "config.toml").write_text("[serving]\nport = 'x'\n")
    status, out = run("--json")
    assert status == 1
    assert "serving.port" in out
