"""Where a broker is: one address or several, with the name it goes by and what opens it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import unquote

from recsys.config.sections import ConsumeSettings
from recsys.errors import ConfigError, InputError

Kind = Literal["kafka", "redis", "nats"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Schemes by kind, and whether they say that the connection is encrypted.
_SCHEMES: dict[Kind, dict[str, bool]] = {
    "kafka": {"kafka": False},
    "redis": {"redis": False, "rediss": True},
    "nats": {"nats": False, "tls": True},
}
_PORTS: dict[Kind, int] = {"kafka": 9092, "redis": 6379, "nats": 4222}
_EXAMPLES: dict[Kind, str] = {
    "kafka": "kafka://host:9092,other:9092",
    "redis": "redis://host:6379/0",
    "nats": "nats://host:4222",
}


@dataclass(frozen=True)
class Address:
    """One broker, or the servers of one cluster."""

    kind: Kind
    servers: tuple[str, ...]  # host:port
    database: str = ""  # Redis: its number
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    sasl_mechanism: str = "PLAIN"

    @property
    def name(self) -> str:
        """What the broker is called where nobody named it; without what opens it."""
        path = f"/{self.database}" if self.database else ""
        return f"{self.kind}://{','.join(self.servers)}{path}"

    def tls_context(self) -> ssl.SSLContext | None:
        """What an encrypted connection is made with. Raises ConfigError."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise ConfigError("consume.ca_file", self.ca_file, _unreadable(error)) from None
        if self.certificate_file:
            try:
                context.load_cert_chain(self.certificate_file, self.key_file)
            except OSError as error:
                key = "consume.certificate_file"
                raise ConfigError(key, self.certificate_file, _unreadable(error)) from None
        return context


def parse_address(kind: Kind, text: str, settings: ConsumeSettings) -> Address:
    """The broker at `text`: KIND://[user:password@]host:port[,host:port…], for Redis with /number.

    Name and password, where the address has none, and all else are those of `settings`. Raises
    InputError, which shows nothing of an address that may hold a password.

    >>> parse_address("kafka", "a:9092,b", ConsumeSettings()).name
    'kafka://a:9092,b:9092'
    >>> parse_address("redis", "rediss://:secret@cache/2", ConsumeSettings()).name
    'redis://cache:6379/2'
    """
    wrong = InputError("URL", "…", f"expected an address such as {_EXAMPLES[kind]}")
    scheme, found, rest = text.strip().rpartition("://")
    if found and scheme not in _SCHEMES[kind]:
        raise wrong
    opened, _, place = rest.rpartition("@")
    hosts, slash, database = place.partition("/")
    if slash and (kind != "redis" or not re.fullmatch(r"\d{0,4}", database, re.ASCII)):
        raise wrong
    servers = tuple(_server(one, _PORTS[kind]) for one in hosts.split(","))
    if not all(servers) or (kind == "redis" and len(servers) > 1):
        raise wrong
    username, _, password = opened.partition(":")
    return Address(
        kind=kind,
        servers=servers,
        database=database,
        username=unquote(username) or settings.username,
        password=unquote(password) or settings.password.get_secret_value(),
        tls=settings.tls or _SCHEMES[kind].get(scheme, False),
        ca_file=settings.ca_file,
        certificate_file=settings.certificate_file,
        key_file=settings.key_file,
        sasl_mechanism=settings.sasl_mechanism,
    )


def _server(text: str, port: int) -> str:
    """`host:port`, or '' where it is none; IPv6 addresses stand in brackets."""
    text = text.strip()
    head, colon, last = text.rpartition(":")
    if not colon or text.endswith("]"):
        head, last = text, str(port)
    if not head or any(one.isspace() or one in "/?#@" for one in head):
        return ""
    if not (last.isascii() and last.isdigit() and 0 < int(last) < 65_536):
        return ""
    return f"{head}:{last}"


def _unreadable(error: OSError) -> str:
    return f"cannot be used ({type(error).__name__})"
