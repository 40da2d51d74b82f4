"""Brokers that ask for TLS and a password: read with both, and a clear word where one of them is wrong."""

import shutil
import ssl
import subprocess
from contextlib import closing

import pytest

from recsys.config.sections import ConsumeSettings
from recsys.errors import ConfigError
from recsys.ingest.streams.addresses import parse_address
from recsys.ingest.streams.broker import BrokerUnavailableError
from recsys.ingest.streams.brokers import open_broker
from tests.conftest import unavailable
from tests.integration.streams.conftest import (
    Feed,
    NatsFeed,
    RedisFeed,
    nats_server,
    on_sqlite,
    redis_server,
    wait_for,
)

PASSWORD = "p@ss: word/?"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate that signs itself, for 127.0.0.1, and its key."""
    openssl = shutil.which("openssl") or unavailable("no openssl is installed")
    folder = tmp_path_factory.mktemp("certificates")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


def guarded_redis(folder, certificate, key):
    server = redis_server(folder)
    at = server.command.index("--port")
    server.command[at : at + 2] = ["--port", "0", "--tls-port", str(server.port)]
    server.command += ["--tls-cert-file", certificate, "--tls-key-file", key]
    server.command += ["--tls-ca-cert-file", certificate, "--tls-auth-clients", "yes"]
    server.command += ["--requirepass", PASSWORD]
    return server


def guarded_nats(folder, certificate, key):
    server = nats_server(folder)
    server.command += ["--tlsverify", "--tlscert", certificate, "--tlskey", key]
    server.command += ["--tlscacert", certificate, "--user", "shop", "--pass", PASSWORD]
    return server


@pytest.fixture(params=["redis", "nats"])
def guarded(request, tmp_path, certificates):
    """A broker that asks for all there is: its kind, its port and a sender."""
    certificate, key = map(str, certificates)
    make = {"redis": guarded_redis, "nats": guarded_nats}[request.param]
    server = make(tmp_path, certificate, key)
    server.start()
    context = ssl.create_default_context(cafile=certificate)
    context.load_cert_chain(certificate, key)
    if request.param == "redis":
        feed = RedisFeed(
            server.port,
            ssl=True,
            ssl_ca_certs=certificate,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            password=PASSWORD,
        )
        close = feed.client.close
    else:
        feed = NatsFeed(server.port, tls=context, user="shop", password=PASSWORD)
        close = feed.close
    yield Feed(request.param, f"127.0.0.1:{server.port}", feed.send, 1, server)
    close()
    server.stop()


def settings(kind, certificates, **changes):
    certificate, key = map(str, certificates)
    known = {"password": PASSWORD, "tls": True, "ca_file": certificate, "batch_seconds": 0.05}
    known |= {"certificate_file": certificate, "key_file": key}
    known |= {"username": "shop"} if kind == "nats" else {}  # Redis's default user has no name
    return ConsumeSettings(**{**known, **changes})


@on_sqlite
def test_a_guarded_broker_is_read(guarded, certificates, running):
    guarded.send("clicks", [{"user_id": "u", "item_id": f"i{n}"} for n in range(5)])
    running.start(guarded, "clicks", settings=settings(guarded.kind, certificates))
    wait_for(lambda: running.total("messages") == 5)
    assert {row.item_id for row in running.stored()} == {f"i{n}" for n in range(5)}


def test_what_is_wrong_is_said_without_the_password(guarded, certificates, tmp_path):
    def ask(**changes):
        chosen = settings(guarded.kind, certificates, **changes)
        with closing(
            open_broker(parse_address(guarded.kind, guarded.url, chosen), ["c"])
        ) as broker:
            broker.partitions()

    for change in ({"password": "other"}, {"tls": False}, {"ca_file": ""}):
        with pytest.raises(BrokerUnavailableError) as refused:
            ask(**change)
        assert not {PASSWORD, "other"} & set(str(refused.value).split())
    with pytest.raises(ConfigError, match=r"consume\.ca_file"):
        ask(ca_file=str(tmp_path / "none.pem"))
