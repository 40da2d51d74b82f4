"""Which model answers whom: the champion, or for the control's share of users the one before it."""

from __future__ import annotations

import hashlib

from recsys.models.bundle import Bundle
from recsys.serving.active_model import Models

CHAMPION, CONTROL = "champion", "control"


def choose(models: Models, who: str | None, share: float) -> tuple[Bundle | None, str | None]:
    """The model for `who` asks, a user or session, and the arm that it is; `share` of all: 0..1."""
    if models.champion is None:
        return None, None
    if models.control is not None and who is not None and in_control(who, share):
        return models.control, CONTROL
    return models.champion, CHAMPION


def in_control(who: str, share: float) -> bool:
    """Whether a user or session is in the control arm: the same ones at every call.

    >>> in_control("u1", 0.0), in_control("u1", 1.0)
    (False, True)
    """
    digest = hashlib.blake2b(who.encode(), digest_size=8, person=b"control").digest()
    return int.from_bytes(digest, "big") < share * 2**64
