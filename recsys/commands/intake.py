"""What arrives as data, stored in one transaction: posted events, and messages of Segment's tracking API.

Data leaves no audit line; a merge that a message asks for leaves the line of every merge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from recsys.commands import user_data
from recsys.errors import ConflictError, shown
from recsys.events.fields import Event
from recsys.events.identity import sequence_key
from recsys.ingest.raw_rows import Rejection
from recsys.ingest.segment_batch import Listing, TrackedBatch
from recsys.ingest.segment_messages import OWNERS
from recsys.storage.engine import advisory_lock
from recsys.storage.engine.database import Connection
from recsys.storage.entities import (
    attribute_rows,
    event_rows,
    impression_rows,
    item_rows,
    rejected_rows,
    stamps,
    tombstone_rows,
    unmapped_rows,
    user_rows,
)
from recsys.storage.entities.audit_rows import Actor
from recsys.storage.entities.event_rows import PostedEvent
from recsys.storage.entities.impression_rows import Impression, ImpressionItem

SEGMENT = "segment"  # the source, in quarantine and where names are counted

# Those of some event types that may not come, where who posts may not bring any type.
TypesBeyond = Callable[[Connection, Collection[str]], set[str]]


def store_events(
    connection: Connection,
    checked: Sequence[tuple[int, Event]],
    now_us: int,
    beyond: TypesBeyond | None,
) -> tuple[dict[int, str], list[PostedEvent]]:
    """Why some of the events are rejected, by their index; what became of the others."""
    advisory_lock.lock_shared(connection)
    problems: dict[int, str] = {}
    if beyond is not None:
        types = beyond(connection, {event.event_type for _, event in checked})
        problems = {
            index: f"event_type = {shown(event.event_type)}: a page brings no more types"
            for index, event in checked
            if event.event_type in types
        }
    owners = {index: sequence_key(one.user_id, one.session_id) for index, one in checked}
    erased = tombstone_rows.is_erased(connection, set(owners.values()))
    problems |= {index: attribute_rows.ERASED for index, owner in owners.items() if owner in erased}
    kept = [event for index, event in checked if index not in problems]
    return problems, event_rows.insert_events(connection, kept, now_us)


@dataclass
class StoredBatch:
    """What became of a batch of messages."""

    events: list[tuple[int, Event, PostedEvent]] = field(default_factory=list)  # with its message's
    problems: dict[int, str] = field(default_factory=dict)  # by the message's index; the first each


def store_messages(
    connection: Connection,
    batch: TrackedBatch,
    actor: Actor,
    now_us: int,
    beyond: TypesBeyond | None,
) -> StoredBatch:
    """Store what a batch of messages means; what cannot be goes to the quarantine."""
    done = store_meaning(connection, batch, actor, now_us, beyond)
    rejections = [*batch.rejections]
    rejections += [
        Rejection(index, problem, batch.raw(index)) for index, problem in done.problems.items()
    ]
    if rejections:
        rejected_rows.add_rejections(connection, SEGMENT, rejections, now_us, OWNERS)
    return done


def store_meaning(
    connection: Connection,
    batch: TrackedBatch,
    actor: Actor,
    now_us: int,
    beyond: TypesBeyond | None,
) -> StoredBatch:
    """Store what a batch of messages means, in an order in which no two batches wait for one another.

    What maps to nothing is counted by name. What cannot be stored is left to the caller, as problems.
    """
    done = StoredBatch()
    numbered = list(enumerate(event for _, event in batch.events))
    problems, stored = store_events(connection, numbered, now_us, beyond)
    for place, problem in problems.items():
        done.problems.setdefault(batch.events[place][0], problem)
    kept = [one for place, one in enumerate(batch.events) if place not in problems]
    done.events = [(*one, posted) for one, posted in zip(kept, stored, strict=True)]
    for index, listing in batch.lists:
        if not _note_shown(connection, listing, batch.from_page):
            done.problems.setdefault(index, attribute_rows.ERASED)
    fresh = item_rows.add_unknown(connection, batch.items, now_us)
    for index, merge in batch.merges:
        try:
            _merge(connection, actor, merge.user_id, merge.others, batch.from_page, now_us)
        except ConflictError as error:
            done.problems.setdefault(index, str(error))
    known = [given for _, given in batch.traits]
    put = attribute_rows.changes_nothing(connection, known, "update")
    if put is None:
        put = attribute_rows.put_attributes(connection, known, "update", now_us)
    for place, problem in put.left_out:
        done.problems.setdefault(batch.traits[place][0], problem)
    if fresh:
        stamps.bump(connection, "items")
    unmapped_rows.count_names(connection, SEGMENT, Counter(batch.left_out), now_us)
    return done


def _merge(
    connection: Connection,
    actor: Actor,
    user_id: str,
    others: Sequence[str],
    from_page: bool,
    now_us: int,
) -> None:
    """Join `others` to a user, but for those that are joined already: to it, or, for a page, to anyone."""
    joined = user_rows.merged_to(connection, [f"u:{user_id}", *others])
    target = joined.get(f"u:{user_id}", user_id)
    for other in others:
        if other in joined and (from_page or joined[other] == target):
            continue
        user_data.merge_within(connection, actor, user_id, other, now_us)


def _note_shown(connection: Connection, listing: Listing, from_page: bool) -> bool:
    """Write down a list that was shown: of an answer of ours, or one of the caller's own.

    False: it was shown to someone who was erased, and nothing is written.
    """
    if (answer_id := listing.recommendation_id) is not None:
        found = impression_rows.get_impression(connection, answer_id)
        shown = list(listing.item_ids)
        if found is not None and from_page:  # of an answer to its session, items of it
            given = {one.item_id for one in found.items}
            own = found.session_id == listing.session_id
            shown = [item_id for item_id in shown if own and item_id in given]
        if found is not None and shown:
            impression_rows.note_shown(connection, answer_id, shown)
            return True
    one = Impression(
        recommendation_id=listing.impression_id,
        created_at_us=listing.timestamp_us,
        user_id=listing.user_id,
        session_id=listing.session_id,
        model_version=None,
        arm=None,
        scenario=listing.scenario,
        items=tuple(ImpressionItem(item_id, "own", 0.0) for item_id in listing.item_ids),
        shown=listing.item_ids,
    )
    kept = tombstone_rows.without_erased(connection, [one])
    impression_rows.insert_impressions(connection, kept)
    return bool(kept)
