"""Segment's tracking API, as its clients and RudderStack's speak it: /v1/track, /v1/batch and the rest.

Events go the way of POST /events. A client drops what is answered by a 4xx, so that one bad message does
not fail a batch: it goes to the quarantine, and the others are stored.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from flask import Blueprint, Response, g, request
from werkzeug.exceptions import UnsupportedMediaType

from recsys.commands import intake
from recsys.ingest.segment_batch import Sender, TrackedBatch, read_batch
from recsys.web.api_keys import from_page
from recsys.web.json_body import body_bytes, parsed
from recsys.web.services import actor, now_us, services
from recsys.web.usage import PostedOutcome

PREFIX = "/v1/"
MAX_BODY_BYTES = 500 * 1_024
BATCH = ""  # the kind of a body that holds messages of any
# By address: the server's clients write it out, the browser's by its first letter.
KINDS = {
    **{kind: kind for kind in ("track", "page", "screen", "identify", "group", "alias")},
    **{"t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias"},
    **{"batch": BATCH, "b": BATCH, "import": BATCH},
}
PLAIN = ("application/json", "text/plain")  # what browsers send without asking first

blueprint = Blueprint("segment", __name__)


def _problem(status: int, title: str, detail: str) -> Response:
    """An error as the clients read it."""
    code = title.lower().replace(" ", "_")
    return _answer({"code": code, "message": detail}, status)


def _answer(content: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, mimetype="application/json")


@blueprint.before_request
def begin() -> None:
    g.problem_page = _problem


@blueprint.post(f"{PREFIX}m")
def metrics() -> Response:
    """What the browser's client measures of itself: taken and left alone."""
    return _answer({"success": True})


def track(kind: str) -> Response:
    """Store one message, or those of a batch."""
    shared = services()
    given = None if request.authorization is None else request.authorization.username
    known = bool(given) or "X-API-Key" in request.headers or "Authorization" in request.headers
    if known:  # who may not ask at all is told that before anything is read
        shared.keys.require("write", collect=True, given=given)
    if request.mimetype not in PLAIN:
        raise UnsupportedMediaType
    data = body_bytes(min(MAX_BODY_BYTES, shared.settings.serving.max_body_bytes))
    body = parsed(data)
    if not known:
        key = body.get("writeKey") if isinstance(body, dict) else None
        shared.keys.require("write", collect=True, given=key if isinstance(key, str) else None)
    shared.keys.spend_bytes(len(data))
    shared.recommender.source.check_writable()
    now, page = now_us(), from_page()
    sender = Sender(page, shared.settings.segment.page_identify)
    batch = read_batch(body, now, shared.event_names, sender, kind)
    shared.keys.spend_events(max(len(batch.messages), len(batch.events)))
    if any(one.recommendation_id for _, one in batch.lists):
        shared.impressions.flush()  # the answer may not be stored yet
    beyond = shared.recommender.event_types.beyond if page else None
    asks = actor()
    stored = shared.writes.write(
        lambda connection: intake.store_messages(connection, batch, asks, now, beyond)
    )
    outcome = PostedOutcome(now)
    for _, event, one in stored.events:
        outcome.note(event, one)
    outcome.rejected = batch.rejected_rows + len(batch.events) - len(stored.events)
    shared.usage.posted(outcome)
    return _told(batch, stored)


def _told(batch: TrackedBatch, stored: intake.StoredBatch) -> Response:
    """Success, unless nothing of it was of any use."""
    problems = {one.position: one.reason for one in batch.rejections} | stored.problems
    if len(problems) == len(batch.messages) and not stored.events:
        return _problem(400, "Bad request", problems[min(problems)])
    return _answer({"success": True})


for _name, _kind in KINDS.items():
    blueprint.add_url_rule(f"{PREFIX}{_name}", _name, partial(track, _kind), methods=["POST"])
