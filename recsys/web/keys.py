"""Who is asking: API keys by scope. `admin` may do what `read` and `write` may."""

from __future__ import annotations

from flask import g, request

from recsys.errors import AccessError, AuthenticationError
from recsys.storage.database import Database
from recsys.storage.key_rows import KeyRow, find_key

MAX_HEADER = 200


class Keys:
    """Checks the key of the request at hand. A revoked key is refused from the next request on."""

    def __init__(self, database: Database, enabled: bool) -> None:
        self._database = database
        self._enabled = enabled

    def require(self, scope: str) -> KeyRow | None:
        """The caller's key; None where keys are switched off.

        Raises AuthenticationError without a live key, AccessError where it lacks `scope`.
        """
        if not self._enabled:
            return None
        given = _given()
        if given is None:
            raise AuthenticationError(
                "an API key is needed: X-API-Key: <key> or Authorization: Bearer <key>"
            )
        with self._database.connect() as connection:
            key = find_key(connection, given) if len(given) <= MAX_HEADER else None
        if key is None:
            raise AuthenticationError("the API key is not known or was revoked")
        if scope not in key.scopes and "admin" not in key.scopes:
            raise AccessError(f"the API key lacks the scope {scope}")
        g.key = key
        return key


def _given() -> str | None:
    header = request.headers.get("X-API-Key")
    if header:
        return header.strip()
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() == "bearer" else None
