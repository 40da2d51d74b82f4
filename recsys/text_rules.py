"""What texts from outside may hold: ids, event types, search words."""

from __future__ import annotations

import re

MAX_ID_LENGTH = 256  # characters of an item, user, session or event id
MAX_TYPE_LENGTH = 64  # characters of an event type
# No control characters (PostgreSQL cannot hold NUL, logs should not hold the rest) and no lone
# surrogates (not UTF-8). Shared by the import, REST and the configuration.
FORBIDDEN_CHARACTERS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def text_problem(value: object, limit: int = MAX_ID_LENGTH) -> str | None:
    """What keeps `value` from being an id of 1 to `limit` characters, or None.

    >>> text_problem("tea"), text_problem(""), text_problem("a\\tb")
    (None, 'expected text of 1 to 256 characters', 'holds a control character')
    """
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        return f"expected text of 1 to {limit} characters"
    if found := FORBIDDEN_CHARACTERS.search(value):
        return "holds a control character" if found[0] < "\x80" else "holds half a surrogate pair"
    return None
