"""Conversions attributed to answers, and their owners forgotten in time, a small batch a transaction."""

from __future__ import annotations

from datetime import datetime

from recsys.config import Settings
from recsys.events.times import DAY_US, MINUTE_US, to_us
from recsys.steering.event_value import ConversionRules
from recsys.storage.engine.database import Database
from recsys.storage.entities import conversion_attribution, conversion_rows

BATCH_ROWS = 10_000  # row numbers of events a transaction
OVERLAP_US = 10 * MINUTE_US  # within which an answer may be stored after its conversion
FORGET_ROWS = 5_000


def attribute_conversions(settings: Settings, database: Database, now: datetime) -> int:
    """Attribute new conversions and returns, and those that are due again; how many events were
    looked at.
    """
    rules = ConversionRules.of(settings.attribution)
    looked_at, last = 0, None
    while True:
        with database.begin() as connection:
            count, last = conversion_attribution.attribute_batch(
                connection, rules, to_us(now), OVERLAP_US, BATCH_ROWS, last
            )
        looked_at += count
        if last is None:
            break
    owners = conversion_attribution.DUE_OWNERS
    while owners == conversion_attribution.DUE_OWNERS:
        with database.begin() as connection:
            owners = conversion_attribution.attribute_due(connection, rules)
    return looked_at


def forget_owners(settings: Settings, database: Database, now: datetime) -> int:
    """Forget whose the conversions past `events.retention_days` were; how many."""
    days = settings.events.retention_days
    if days == 0:
        return 0
    before_us, forgotten, some = to_us(now) - days * DAY_US, 0, FORGET_ROWS
    while some == FORGET_ROWS:
        with database.begin() as connection:
            some = conversion_rows.forget_owners(connection, before_us, FORGET_ROWS)
        forgotten += some
    return forgotten
