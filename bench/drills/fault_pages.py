"""Attacks with a page's key, which stands in a page for anyone to read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.drills.fault_stage import Fault, ask, resident, told
from bench.installations import Installation
from bench.load import answer
from recsys.config import Settings

MIB = 2**20
GROWTH_MIB = 256.0
TEXT = "BUY AT EVIL.EXAMPLE"
# So that other bounds than these are tried.
NO_LIMITS = {
    "RECSYS_AUTH__COLLECT_PER_MINUTE": "1000000",
    "RECSYS_AUTH__COLLECT_EVENTS_PER_MINUTE": "100000000",
    "RECSYS_AUTH__COLLECT_BYTES_PER_MINUTE": "1000000000000",
}
GUARD = {
    "RECSYS_PROMOTION__GUARD_MIN_ANSWERS": "20"
}  # so that 200 answers are enough for a verdict


def filled_memory(place: Installation, requests: int = 250) -> Fault:
    """Every request lists thousands of long ids of its own, to be ranked after an event."""
    with place.serving(NO_LIMITS) as (port, server):
        ask(port, place.with_sequence)
        before = resident(server)
        statuses: Counter[int] = Counter()
        for number in range(requests):
            listed = [f"{number}-{n}-{'x' * 200}" for n in range(5_000)]
            asked = {
                "session_id": "s",
                "events": [{"item_id": "P0001"}],
                "candidates": listed,
                "k": 5,
            }
            statuses[ask(port, place.page_asks("/recommendations", asked))] += 1
        grown = resident(server) - before
    figures = {"statuses": told(statuses), "grown_mib": round(grown, 1)}
    held = grown < GROWTH_MIB and statuses[200] == requests
    return Fault(f"a page lists 5,000 long candidates, {requests} times", held, figures)


def flood_of_events(place: Installation, requests: int = 30) -> Fault:
    """A thousand events a request, as many requests as the key takes."""
    batch = [{"session_id": "flood", "item_id": "P0001"} for _ in range(1_000)]
    statuses, accepted, others = _posted(place, batch, requests)
    most = 2 * Settings().auth.collect_events_per_minute  # while it is tried, a part comes back
    figures = {"statuses": told(statuses), "stored": accepted}
    held = accepted <= most and others == 200 and set(statuses) <= {200, 429}
    return Fault(f"a page posts {requests * 1_000:,} events", held, figures)


def flood_of_bytes(place: Installation, requests: int = 30) -> Fault:
    """A hundred events a request, as thick as they may be."""
    one = {"session_id": "flood", "item_id": "P0001", "properties": {"note": "x" * 7_500}}
    statuses, accepted, others = _posted(place, [one] * 100, requests)
    stored = accepted * 7_500
    figures = {"statuses": told(statuses), "stored_mib": round(stored / MIB, 1)}
    most = 2 * Settings().auth.collect_bytes_per_minute
    held = stored <= most and others == 200 and set(statuses) <= {200, 429}
    return Fault(f"a page posts {requests * 100 * 7_500 / MIB:.0f} MiB", held, figures)


def _posted(place: Installation, batch: list[Any], requests: int) -> tuple[Counter[int], int, int]:
    """Statuses of `requests` posts, events accepted, and what a neighbour is answered then."""
    statuses: Counter[int] = Counter()
    accepted = 0
    with place.serving() as (port, _):
        for _ in range(requests):
            status, body = answer(port, place.page_asks("/events", batch))
            statuses[status] += 1
            accepted += body["accepted"] if status == 200 else 0
        return statuses, accepted, ask(port, place.with_sequence)


def empty_answers(place: Installation, requests: int = 200) -> Fault:
    """Answers without an item, of which the guard should not think anything."""
    nothing = {"candidates": ["P0001"], "exclude_items": ["P0001"]}
    statuses: Counter[int] = Counter()
    with place.serving(NO_LIMITS) as (port, _):
        before = place.champion(port)
        for number in range(requests):
            asked = {"session_id": f"s{number}", **nothing}
            statuses[ask(port, place.page_asks("/recommendations", asked))] += 1
        place.refreshed(port, GUARD)
        after = place.champion(port)
    figures = {"statuses": told(statuses), "rolled_back": after != before}
    held = after == before and statuses[200] == requests
    return Fault(f"{requests} empty answers to a page", held, figures)


def clicked_control(place: Installation, sessions: int = 200) -> Fault:
    """A page clicks on whatever does not come from the champion, if it is told."""
    arms: Counter[str] = Counter()
    clicks = 0
    with place.serving({"RECSYS_SERVING__CONTROL_SHARE": "0.5", **NO_LIMITS}) as (port, _):
        before = place.champion(port)
        for number in range(sessions):
            asked = {"session_id": f"s{number}", "events": [{"item_id": "P0001"}], "k": 5}
            _, shown = answer(port, place.page_asks("/recommendations", asked))
            arms[shown["arm"]] += 1
            if shown["arm"] == "champion":
                continue
            click = {
                "session_id": f"s{number}",
                "item_id": shown["items"][0]["item_id"],
                "recommendation_id": shown["recommendation_id"],
            }
            clicks += ask(port, place.page_asks("/events", click)) == 200
        place.refreshed(port, GUARD)
        after = place.champion(port)
    figures = {"arms": dict(arms), "clicks": clicks, "rolled_back": after != before}
    return Fault("a page clicks on one arm's answers alone", after == before, figures)


def any_text_first(place: Installation, sessions: int = 12) -> Fault:
    """A text of the attacker's choice as the item of many events, within the default limits."""
    statuses: Counter[int] = Counter()
    with place.serving() as (port, _):
        for number in range(sessions):
            rows = [{"session_id": f"s{number}", "item_id": TEXT}] * 80
            statuses[ask(port, place.page_asks("/events", rows))] += 1
        _, popular = answer(port, place.asks("/items/popular?k=1000"))
        _, fresh = answer(port, place.asks("/recommendations", {"session_id": "new", "k": 100}))
    figures: dict[str, Any] = {"statuses": told(statuses)}
    for name, found in (("popular", popular), ("new_visitor", fresh)):
        ids = [one["item_id"] for one in found["items"]]
        figures[f"place_in_{name}"] = ids.index(TEXT) + 1 if TEXT in ids else None
    held = figures["place_in_popular"] is None and figures["place_in_new_visitor"] is None
    return Fault(f"a page posts {sessions * 80} events of a text of its own", held, figures)


def flood_before_training(place: Installation, sessions: int = 100) -> Fault:
    """Three times the log's events, of new sessions with one item, if no limit stands before it."""
    accepted = 0
    with place.serving(NO_LIMITS) as (port, _):
        for number in range(sessions):
            rows = [{"session_id": f"flood-{number}", "item_id": "P0001"}] * 100
            status, body = answer(port, place.page_asks("/events", rows))
            accepted += body["accepted"] if status == 200 else 0
    ran = place.recsys("train", "--json")
    figures = {"events": accepted, "status": ran.status, "told": ran.error.strip()[-200:]}
    if ran.status == 0:
        figures["told"] = f"trained {ran.told['version']}"
    return Fault("a page's flood before a training", ran.status == 0, figures)
