"""Who is asking: API keys by scope. `admin` may do what `read` and `write` may.

A key of scope `collect` may stand in a page for everyone to see. It may post events, ask for
recommendations of a session, report which of them were seen, and list similar, next and popular items
of the catalogue, and nothing else; only from the origins it names; and so often, with so many events
and so many bytes, for each address.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from flask import g, request

from recsys.config import AuthSettings
from recsys.errors import (
    AccessError,
    AuthenticationError,
    InputError,
    RateLimitError,
    StorageUnavailableError,
    shown,
)
from recsys.storage.engine.database import Database
from recsys.storage.entities.key_rows import KeyRow, find_key_and_stamps, origins
from recsys.storage.entities.stamps import Stamps, read_stamps
from recsys.text_rules import counted_address
from recsys.web import prometheus_metrics
from recsys.web.rate_limits import Limits

MAX_HEADER = 200
MAX_SEEN = 10_000  # active keys remembered for when the database is away,
SEEN_SECONDS = 3_600.0  # each for so long after the database last said that it lives
CHECKED_SECONDS = 1.0  # for which a key need not be read again while no key changes
COLLECT = "collect"
KEY_PARAMETER = "api_key"  # of an address, where a page cannot send headers


class Keys:
    """Checks the key of the request at hand. A revoked key is refused from the next request on."""

    def __init__(
        self,
        database: Database,
        settings: AuthSettings,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._settings = settings
        self._limits = limits
        self._clock = clock
        # By digest: the key, the stamp of keys when it was read, and when that was.
        self._seen: dict[bytes, tuple[KeyRow, int, float]] = {}
        self._origins: tuple[int, frozenset[str]] = (-1, frozenset())

    def require(
        self, scope: str, *, collect: bool = False, given: str | None = None
    ) -> KeyRow | None:
        """The caller's key; None where keys are switched off.

        `collect`: whether a key of that scope will do too. `given`: the key, where it came in a way
        that other routes do not take. Raises AuthenticationError without a live
        key, AccessError where it lacks `scope` or comes from elsewhere, RateLimitError where it has
        come too often.
        """
        if not self._settings.enabled:
            return None
        given = given or _given()
        by_address = given is None and collect
        if by_address:
            given = request.args.get(KEY_PARAMETER) or None
        if given is None:
            raise AuthenticationError(
                "an API key is needed: X-API-Key: <key> or Authorization: Bearer <key>"
            )
        key, g.stamps = self._find(given[:MAX_HEADER])
        if key is None:
            raise AuthenticationError("the API key is not known or was revoked")
        if by_address and COLLECT not in key.scopes:
            raise AccessError("a key in the address is of scope collect; send others as X-API-Key")
        g.key = key
        if COLLECT in key.scopes:
            self._check_page(key, collect)
        elif scope not in key.scopes and "admin" not in key.scopes:
            raise AccessError(f"the API key lacks the scope {scope}")
        elif self._settings.requests_per_minute:
            self._limit(f"key {key.key_id}", self._settings.requests_per_minute)
        return key

    def uncounted(
        self, given: str | None, scope: str
    ) -> tuple[KeyRow | None, Stamps | None] | None:
        """The key and the stamps read with it, where `require` would take the key and count nothing for it.

        None where `require` is to decide. Raises StorageUnavailableError.
        """
        if not self._settings.enabled:
            return None, None
        if not given or self._settings.requests_per_minute:
            return None
        key, stamps = self._find(given[:MAX_HEADER])
        if key is None or not ({scope, "admin"} & set(key.scopes)) or COLLECT in key.scopes:
            return None
        return key, stamps

    def allows_origin(self, origin: str) -> bool:
        """Whether pages of `origin` may read answers: some active key of scope collect names it.

        With the database away, whether one did when it was last asked.
        """
        stamps: Stamps | None = g.get("stamps")
        if stamps is None or stamps.keys != self._origins[0]:
            try:
                with self._database.connect() as connection:
                    _, stamps = find_key_and_stamps(connection, "")
                    self._origins = (stamps.keys, origins(connection))
            except StorageUnavailableError:
                pass
        return origin in self._origins[1]

    def _find(self, given: str) -> tuple[KeyRow | None, Stamps | None]:
        """The active key, and the stamps read with it. With the database away, a key that was live within
        the last SEEN_SECONDS, without stamps.
        """
        digest = hashlib.sha256(given.encode()).digest()
        seen, stamp, read_at = self._seen.get(digest, (None, -1, 0.0))
        lately = seen is not None and self._clock() - read_at < CHECKED_SECONDS
        try:
            with self._database.read() as connection:
                if lately:  # the stamp is read anyway, and tells whether any key has changed
                    stamps = read_stamps(connection)
                    if stamps.keys == stamp:
                        return seen, stamps
                key, stamps = find_key_and_stamps(connection, given)
        except StorageUnavailableError:
            if seen is None or self._clock() - read_at > SEEN_SECONDS:
                raise
            return seen, None
        if key is None:
            self._seen.pop(digest, None)
        elif digest in self._seen or len(self._seen) < MAX_SEEN:
            self._seen[digest] = (key, stamps.keys, self._clock())
        return key, stamps

    def _check_page(self, key: KeyRow, collect: bool) -> None:
        if not collect:
            raise AccessError(
                "the API key is for pages: it posts events, asks for its session's recommendations, "
                "reports what was seen of them, and lists similar, next and popular items"
            )
        origin = _page_origin()
        if origin not in key.allowed_origins:
            raise AccessError(_refused_origin(origin))
        self._limit(_page_caller(key), self._settings.collect_per_minute)

    def spend_bytes(self, number: int) -> None:
        """Count what a page's key sends, or has stored; other keys' costs nothing.

        Raises RateLimitError, or InputError for more than a minute may bring.
        """
        self._spend("bytes", number, self._settings.collect_bytes_per_minute)

    def spend_events(self, number: int) -> None:
        """Count the events that a page's key posts. Raises as `spend_bytes`."""
        self._spend("events", number, self._settings.collect_events_per_minute)

    def _spend(self, unit: str, number: int, per_minute: int) -> None:
        key: KeyRow | None = g.get("key")
        if key is None or COLLECT not in key.scopes or number == 0:
            return
        if number > per_minute:
            raise InputError("body", f"{number:,} {unit}", f"a page sends at most {per_minute:,}")
        self._limit(f"{_page_caller(key)} {unit}", per_minute, number)

    def _limit(self, caller: str, per_minute: int, cost: int = 1) -> None:
        wait = self._limits.seconds_to_wait(caller, per_minute, cost)
        if wait > 0:
            prometheus_metrics.limited.inc()
            raise RateLimitError(wait)


def _page_origin() -> str | None:
    """The origin of the page that sends the request.

    Of a GET to their own origin browsers send no Origin; then `Sec-Fetch-Site` or the Referer tells
    it, neither of which a page of another origin can forge.
    """
    origin = request.headers.get("Origin")
    if origin is not None or request.method != "GET":
        return origin
    if request.headers.get("Sec-Fetch-Site") == "same-origin":
        return request.host_url.rstrip("/")
    try:
        referer = urlsplit(request.headers.get("Referer", ""))
    except ValueError:
        return None
    return f"{referer.scheme}://{referer.netloc}" if referer.netloc else None


def _refused_origin(origin: str | None) -> str:
    """Why a page's key is refused, and what to do."""
    if origin is None:
        return "the API key is for pages, and the request names no origin: browsers send Origin"
    if origin == "null":
        return "the page has no origin, as one opened from a file: serve it over http or https"
    return (
        f"the origin {shown(origin)} is not allowed: create a key for it (recsys keys create NAME "
        "--scope collect --origin ORIGIN, or Keys in the dashboard)"
    )


def _page_caller(key: KeyRow) -> str:
    """Whom the limits of a page's key are for: the key at an address."""
    return f"{key.key_id} {counted_address(request.remote_addr or '-')}"


def from_page() -> bool:
    """Whether the request at hand comes with a key that anyone can read."""
    key: KeyRow | None = g.get("key")
    return key is not None and COLLECT in key.scopes


def _given() -> str | None:
    header = request.headers.get("X-API-Key")
    if header:
        return header.strip()
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() == "bearer" else None
