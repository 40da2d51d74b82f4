"""`recsys consume` refuses what it cannot consume, before it connects, and offers what a message has."""

import sys

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.cli.register import register
from recsys.errors import InputError, MissingExtraError, RecsysError

KAFKA = ("kafka", "kafka://host")


@pytest.fixture
def run(tmp_path, monkeypatch):
    register(app)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATABASE__URL", f"sqlite:///{tmp_path}/recsys.db")
    return lambda *arguments: CliRunner().invoke(app, ["consume", *arguments])


def test_help_offers_how_messages_are_read_and_nothing_of_files(run):
    offered = run("--help").stdout
    for option in ("--map", "--unit", "--where", "--null", "--time-format", "--from", "--name"):
        assert f" {option} " in offered
    for option in ("--format", "--order", "--columns", "--delimiter", "--quote", "--encoding"):
        assert option not in offered.replace("--time-format", "")
        refused = run(*KAFKA, "clicks", option, "x")
        assert refused.exit_code == 2
        assert f"No such option: {option}" in refused.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ("rabbitmq", "amqp://host", "t"),
            "KIND = 'rabbitmq': expected one of: kafka, redis, nats",
        ),
        ((*KAFKA, "t", "--from", "now"), "--from = 'now': expected earliest or latest"),
        ((*KAFKA, "t", "--name", ""), "--name = ''"),
        ((*KAFKA, "t", "--unit", "s"), "--unit = 's': says more of --map"),
        ((*KAFKA, "t", "--where", "a=b"), "says more of --map"),
        ((*KAFKA, "t", "--map", "user=u"), "which field is the item"),
        ((*KAFKA, "t", "--map", "prise=u,item=i"), "prise"),
        ((*KAFKA, "t", "t"), "TOPIC = 't': is named twice"),
        (("redis", "redis://:s3cret@a/b", "t"), "URL = '…': expected an address such as redis://"),
        (("redis", "file:none", "t"), "URL = 'file:none': the file cannot be read (FileNotFound"),
    ],
)
def test_what_cannot_be_consumed_is_refused(run, arguments, problem):
    found = run(*arguments).exception
    assert isinstance(found, InputError)
    assert problem in str(found)
    assert "s3cret" not in str(found)


def test_an_address_in_a_file_is_read_and_not_shown(run, tmp_path):
    (tmp_path / "url").write_text("kafka://me:s3cret@host/topic\n")
    found = run("kafka", "file:url", "t").exception
    assert "URL = '…'" in str(found)
    assert "s3cret" not in str(found)


def test_a_missing_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    found = run(*KAFKA, "t").exception
    assert isinstance(found, MissingExtraError)
    assert "pip install 'recsys[kafka]'" in str(found)


def test_a_database_that_is_not_set_up_says_how(run):
    found = run("redis", "redis://127.0.0.1:1", "t").exception
    assert isinstance(found, RecsysError)
    assert "recsys db upgrade" in str(found) or "recsys init" in str(found)
