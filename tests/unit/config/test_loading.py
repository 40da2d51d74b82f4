import pytest

from recsys.config import effective, load_settings
from recsys.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_environment_wins_over_the_file_and_keeps_its_other_keys(tmp_path, monkeypatch):
    path = write(tmp_path, "[serving]\nport = 9000\nworkers = 3\n")
    monkeypatch.setenv("RECSYS_SERVING__PORT", "9001")
    monkeypatch.setenv("RECSYS_SEQUENCES__TARGET_EVENT_TYPES", '["purchase"]')
    settings = load_settings(path)
    assert (settings.serving.port, settings.serving.workers) == (9001, 3)
    assert settings.sequences.target_event_types == ("purchase",)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[serving]\nprot = 1\n", ["serving.prot", "port"]),
        ("[severing]\nport = 1\n", ["severing", "serving"]),
        ("[serving]\nport = 70000\n", ["serving.port", "70000", "65535"]),
        ("[model]\nwidth = 'wide'\n", ["model.width", "wide", "integer"]),
        ("[sequences]\nevent_weights = {view = -1}\n", ["event_weights", "-1"]),
        ("port = = 1", ["TOML"]),
    ],
)
def test_a_bad_file_is_refused_by_key_value_and_what_was_expected(tmp_path, text, names):
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text))
    assert all(name in str(caught.value) for name in names), caught.value


@pytest.mark.parametrize(
    ("name", "value", "names"),
    [
        ("RECSYS_SERVING__PROT", "1", ["RECSYS_SERVING__PROT", "port"]),
        ("RECSYS_NOTHING__PORT", "1", ["RECSYS_NOTHING__PORT", "serving"]),
        ("RECSYS_SERVING__PORT", "x", ["serving.port", "x"]),
        ("RECSYS_SEQUENCES__TARGET_EVENT_TYPES", "[", ["JSON"]),
    ],
)
def test_a_bad_variable_is_refused(monkeypatch, name, value, names):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert all(text in str(caught.value) for text in names), caught.value


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="existing"):
        load_settings(tmp_path / "nothing.toml")


def test_a_secret_may_be_a_file_and_is_never_shown(tmp_path):
    secret = tmp_path / "url"
    secret.write_text("postgresql://me:hunter2@db/recsys\n")
    settings = load_settings(database={"url": f"file:{secret}"})
    assert settings.database.url.get_secret_value().endswith("hunter2@db/recsys")
    assert "hunter2" not in repr(settings) + str(effective(settings))
    assert effective(settings)["database"]["url"] == "postgresql://me:***@db/recsys"
    with pytest.raises(ConfigError) as caught:
        load_settings(database={"url": f"file:{tmp_path}/absent"})
    assert "database.url" in str(caught.value)


@pytest.mark.parametrize("zone", ["Mars/Base", "Europe", "", "../UTC"])
def test_a_time_zone_is_checked_where_settings_are_loaded(zone):
    with pytest.raises(ConfigError, match=r"schedule\.timezone = .*an IANA name") as caught:
        load_settings(schedule={"timezone": zone})
    assert repr(zone) in str(caught.value)
