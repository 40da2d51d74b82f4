"""What texts from outside may hold, and how they are counted: ids, event types, search words, addresses."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

MAX_ID_LENGTH = 256  # characters of an item, user, session or event id
MAX_TYPE_LENGTH = 64  # characters of an event type
_NAT64 = ip_network("64:ff9b::/96")
# No control characters (PostgreSQL cannot hold NUL, logs should not hold the rest) and no lone
# surrogates (not UTF-8). Shared by the import, REST and the configuration.
FORBIDDEN_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Those of them that earlier releases took too (C1), and what turns the direction of text round.
UNSEEN_CHARACTERS = re.compile("[\x80-\x9f\u2028-\u202e\u2066-\u2069]")
_STORED_BEFORE = re.compile("[\x80-\x9f]")


def text_problem(value: object, limit: int = MAX_ID_LENGTH) -> str | None:
    """What keeps `value` from being an id of 1 to `limit` characters, or None.

    >>> text_problem("tea"), text_problem(""), text_problem("a\\tb")
    (None, 'expected text of 1 to 256 characters', 'holds a control character')
    """
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        return f"expected text of 1 to {limit} characters"
    if found := FORBIDDEN_CHARACTERS.search(value):
        return "holds a control character" if found[0] < "\xa0" else "holds half a surrogate pair"
    return None


def stored_text_problem(value: object, limit: int = MAX_ID_LENGTH) -> str | None:
    """As `text_problem`, of what is looked up and not stored: C1 characters were taken once.

    >>> text_problem("a\\x85"), stored_text_problem("a\\x85")
    ('holds a control character', None)
    """
    return text_problem(_STORED_BEFORE.sub("?", value) if isinstance(value, str) else value, limit)


def counted_address(address: str) -> str:
    """What counts as one address wherever a limit is by address.

    Of IPv6 the first 64 bits: the rest is its holder's to choose. One that stands for an IPv4 address
    (mapped, 6to4, Teredo, NAT64) is that.

    >>> counted_address("2001:db8::1") == counted_address("2001:db8:0:0:ffff::2")
    True
    >>> counted_address("::ffff:192.0.2.1"), counted_address("unix:")
    ('192.0.2.1', 'unix:')
    """
    try:
        given = ip_address(address.strip("[] "))
    except ValueError:
        return address
    if isinstance(given, IPv4Address):
        return str(given)
    inside = _ipv4_of(given)
    return str(inside) if inside is not None else f"{IPv6Address(int(given) >> 64 << 64)}/64"


def _ipv4_of(given: IPv6Address) -> IPv4Address | None:
    if given.teredo is not None:
        return given.teredo[1]
    if given in _NAT64 or (
        int(given) >> 32 == 0 and int(given) > 1
    ):  # the deprecated ::192.0.2.1 too
        return IPv4Address(int(given) & 0xFFFFFFFF)
    return given.ipv4_mapped or given.sixtofour
