"""The checks of `recsys.training.data_checks` before a training: said line by line, and a failed one stops it."""

from __future__ import annotations

from collections.abc import Callable

from recsys.config import Settings
from recsys.errors import DataCheckError, NotEnoughDataError
from recsys.events.frame import EventFrame
from recsys.models.bundle import Bundle
from recsys.training.data_checks import Check, Known, check_frame


def check_before_training(
    frame: EventFrame, settings: Settings, champion: Bundle | None, say: Callable[[str], None]
) -> list[Check]:
    """Check the log before anything is learned from it, against what the `champion` was taught too.

    Raises NotEnoughDataError where there are too few events or users, DataCheckError for all else.
    """
    known = None
    if champion is not None:
        until_us = int(champion.facts["data_end_us"])
        known = Known(champion.vocabulary, champion.event_types, until_us)
    checks = check_frame(frame, settings, known)
    for check in checks:
        say(str(check))
    failed = [check for check in checks if not check.passed]
    if failed:
        scarce = all(check.name in ("min_events", "min_users") for check in failed)
        reason = "; ".join(str(check).removeprefix("FAILED: ") for check in failed)
        raise (NotEnoughDataError if scarce else DataCheckError)(reason)
    return checks
