"""Addresses of brokers: what they say, what is refused, and that no password is told."""

import pytest

from recsys.config.sections import ConsumeSettings
from recsys.errors import ConfigError, InputError, MissingExtraError
from recsys.ingest.streams.addresses import KINDS, parse_address
from recsys.ingest.streams.brokers import MAX_TOPICS, open_broker

SETTINGS = ConsumeSettings()
LIBRARIES = {"kafka": "confluent_kafka", "redis": "redis", "nats": "nats"}


@pytest.mark.parametrize(
    ("kind", "text", "name", "tls"),
    [
        ("kafka", "kafka://a:9092,b", "kafka://a:9092,b:9092", False),
        ("kafka", "a, b:19092", "kafka://a:9092,b:19092", False),
        ("redis", "redis://cache", "redis://cache:6379", False),
        ("redis", "rediss://cache:7000/3", "redis://cache:7000/3", True),
        ("nats", "nats://[::1]:4333", "nats://[::1]:4333", False),
        ("nats", "tls://[::1]", "nats://[::1]:4222", True),
    ],
)
def test_an_address(kind, text, name, tls):
    found = parse_address(kind, text, SETTINGS)
    assert (found.name, found.tls) == (name, tls)


def test_name_and_password_of_the_address_go_before_those_of_the_settings():
    given = ConsumeSettings(username="own", password="hidden", tls=True)
    found = parse_address("nats", "nats://host", given)
    assert (found.username, found.password, found.tls) == ("own", "hidden", True)
    found = parse_address("nats", "nats://me:p%40ss@host", given)
    assert (found.username, found.password) == ("me", "p@ss")


def test_no_password_is_told():
    for kind in KINDS:
        found = parse_address(kind, "me:s3cret@host", SETTINGS)
        assert found.password == "s3cret"
        assert "s3cret" not in repr(found) + str(found) + found.name


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("kafka", "redis://me:s3cret@host"),
        ("kafka", "kafka://me:s3cret@"),
        ("kafka", "kafka://me:s3cret@host/topic"),
        ("redis", "redis://:s3cret@host/cache"),
        ("redis", "redis://:s3cret@a,b"),
        ("redis", "redis://:s3cret@host:0"),
        ("nats", "nats://me:s3cret@host:65536"),
        ("nats", "nats://me:s3cret@a,,b"),
        ("nats", "nats://me:s3cret@ho st"),
    ],
)
def test_what_is_no_address_is_refused_and_not_shown(kind, text):
    with pytest.raises(
        InputError, match=f"URL = '…': expected an address such as {kind}://host"
    ) as e:
        parse_address(kind, text, SETTINGS)
    assert "s3cret" not in str(e.value)


def test_certificates_that_cannot_be_read_are_named(tmp_path):
    none = str(tmp_path / "none.pem")
    for key in ("ca_file", "certificate_file"):
        given = ConsumeSettings.model_construct(
            **{**dict(SETTINGS), "tls": True, key: none, "key_file": none}
        )
        with pytest.raises(ConfigError, match=rf"consume\.{key}.*FileNotFoundError"):
            parse_address("kafka", "host", given).tls_context()
    assert parse_address("kafka", "host", SETTINGS).tls_context() is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_extra_is_named_with_how_to_get_it(kind, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, LIBRARIES[kind], None)
    with pytest.raises(MissingExtraError) as error:
        open_broker(parse_address(kind, "host", SETTINGS), ["clicks"])
    assert f"pip install 'recsys[{kind}]'" in str(error.value)


@pytest.mark.parametrize(
    ("topics", "problem"),
    [
        ([], "expected 1 to 100 topics"),
        ([f"t{n}" for n in range(MAX_TOPICS + 1)], "TOPIC = 101: expected 1 to 100 topics"),
        (["a", "b", "a"], "TOPIC = 'a': is named twice"),
        ([""], "TOPIC = ''"),
        (["a\x00"], "TOPIC = 'a"),
    ],
)
def test_topics_that_cannot_be(topics, problem):
    with pytest.raises(InputError) as error:
        open_broker(parse_address("redis", "host", SETTINGS), topics)
    assert problem in str(error.value)
