"""Formats whose rows are not events but hold some: which there are, and a file's rows by one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from recsys.config import TrackedEvent
from recsys.errors import InputError
from recsys.events.fields import EVENT_COLUMNS
from recsys.ingest.analytics_exports import (
    SNOWPLOW_ACTION,
    SNOWPLOW_PRODUCTS,
    Translate,
    ga4_row,
    posthog_rows,
    segment_rows,
    snowplow_row,
)
from recsys.ingest.ecommerce_events import EventNames
from recsys.ingest.layouts import listed
from recsys.ingest.raw_rows import Row

MAX_NAMES = 200  # by which rows are left out that are told apart
OTHERS = "(other names)"
_OWN = frozenset(EVENT_COLUMNS)

# By format: the columns that a file must have, and those that are read as well.
COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "segment": (
        ("type", "messageId"),
        (
            *("event", "userId", "anonymousId", "timestamp", "originalTimestamp", "sentAt"),
            *("receivedAt", "properties", "context", "traits", "previousId"),
        ),
    ),
    "ga4": (
        ("event_name", "event_timestamp", "user_pseudo_id"),
        (
            *("user_id", "items", "event_params", "ecommerce"),
            *("batch_page_id", "batch_ordering_id", "batch_event_index"),
        ),
    ),
    "snowplow": (
        ("event_id", "collector_tstamp"),
        (
            *("event", "event_name", "user_id", "domain_userid", "network_userid"),
            *("domain_sessionid", "derived_tstamp", "true_tstamp"),
            *(SNOWPLOW_ACTION, SNOWPLOW_PRODUCTS),
        ),
    ),
    "posthog": (("event", "distinct_id", "timestamp"), ("uuid", "properties")),
}
TRANSLATED = tuple(COLUMNS)


@dataclass
class Translation:
    """The rows of a file of one of these formats, as columns of events."""

    format: str
    translate: Translate
    names: Sequence[str] = EVENT_COLUMNS
    left_out: Counter[str] = field(default_factory=Counter)  # since they were last asked for
    known: set[str] = field(default_factory=set)

    @property
    def first(self) -> Sequence[str]:
        return COLUMNS[self.format][0]

    def rows(self, row: Row) -> list[Row]:
        """The events of a row; of one that was rejected as an event of it, that one."""
        if "item_id" in row and row.keys() <= _OWN:
            return [row]
        found = self.translate(row)
        if isinstance(found, str):
            name = " ".join(found.split())[:100]
            if name not in self.known and len(self.known) >= MAX_NAMES:
                name = OTHERS
            self.known.add(name)
            self.left_out[name] += 1
            return []
        return found

    def noted(self) -> Counter[str]:
        """What was left out since the last call, in words."""
        found = Counter({f"left out: {name}": n for name, n in self.left_out.items()})
        self.left_out.clear()
        return found

    def columns(self, names: Collection[str]) -> list[str]:
        """Those of a file's columns that are read. Raises InputError where one that must be is not there."""
        needed, more = COLUMNS[self.format]
        missing = [name for name in needed if name not in names]
        if missing:
            raise InputError(
                "--format",
                self.format,
                f"expected the columns {', '.join(needed)}; the file has {listed(list(names))}",
            )
        versions = tuple(f"{name}_" for name in (SNOWPLOW_ACTION, SNOWPLOW_PRODUCTS))
        wanted = {*needed, *more}
        return [name for name in names if name in wanted or name.startswith(versions)]


def translation_of(name: str, own: Mapping[str, TrackedEvent]) -> Translation | None:
    """The format's translation; None for any other name. `own`: segment.events."""
    if name == "segment":
        return Translation(name, segment_rows(EventNames(own)))
    if name == "posthog":
        return Translation(name, posthog_rows(EventNames(own)))
    if name == "ga4":
        return Translation(name, ga4_row)
    if name == "snowplow":
        return Translation(name, snowplow_row)
    return None
