"""Exports: events, items, and all that is stored of one user, sent as they are read."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from flask import Blueprint, Response, render_template, request

from recsys.commands import user_data
from recsys.errors import InputError
from recsys.events.export_files import KINDS, streamed
from recsys.events.fields import EVENT_FIELDS
from recsys.events.times import DAY_US, rfc3339
from recsys.storage.engine.database import Database
from recsys.storage.entities import item_rows
from recsys.storage.user_export import user_json
from recsys.text_rules import stored_text_problem
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.queries import day_start
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_exports", __name__, url_prefix=f"{PREFIX}/data-quality/exports")

EXPORT_PATHS = frozenset(
    f"{PREFIX}/data-quality/exports/{name}" for name in ("events", "items", "user")
)
FORMATS = tuple(kind[1:] for kind in KINDS)
TYPES = {"parquet": "application/vnd.apache.parquet", "csv": "text/csv", "jsonl": "application/x-ndjson"}  # fmt: skip
PAGE_ITEMS = 2_000
EVENT_SCHEMA = pa.schema([(one.name, one.arrow_type) for one in EVENT_FIELDS])
ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("categories", pa.string()),
        ("price", pa.float64()),
        ("image", pa.string()),
        ("available", pa.bool_()),
        ("properties", pa.string()),
        ("created_at", pa.string()),
        ("updated_at", pa.string()),
    ]
)


@view(blueprint, "", role="operator")
def index() -> str:
    """What can be exported, and how."""
    return render_template("admin/exports.html", formats=FORMATS)


@view(blueprint, "/events", role="operator", methods=("POST",))
def events() -> Response:
    """Events of all time, or of whole UTC days."""
    kind, now = _format(), now_us()
    given = {name: request.form.get(name, "") for name in ("from", "to")}
    since = day_start(given, "from") if given["from"] else 0
    until = day_start(given, "to") + DAY_US if given["to"] else None
    if until is not None and until <= since:
        raise InputError("to", given["to"], "expected the day of `from`, or a later one")
    details = {"format": kind, **{name: day for name, day in given.items() if day}}
    user_data.note_export(services().database, actor(), "events", details, now)
    batches = services().recommender.source.export_batches(now, since)
    found = streamed(f".{kind}", _before(batches, until), EVENT_SCHEMA)
    return _download(found, f"events.{kind}", TYPES[kind])


@view(blueprint, "/items", role="operator", methods=("POST",))
def items() -> Response:
    """The catalogue."""
    kind = _format()
    user_data.note_export(services().database, actor(), "items", {"format": kind}, now_us())
    return _download(
        streamed(f".{kind}", _item_batches(services().database), ITEM_SCHEMA),
        f"items.{kind}",
        TYPES[kind],
    )


@view(blueprint, "/user", role="operator", methods=("POST",))
def user() -> Response:
    """All that is stored of one user, as JSON."""
    user_id = request.form.get("user_id", "")
    if problem := stored_text_problem(user_id):
        raise InputError("user_id", user_id, problem)
    shared = services()
    found = user_json(shared.recommender.source, shared.database, user_id, now_us())
    user_data.note_user_export(shared.database, actor(), user_id, now_us())
    return _download(found, "user.json", "application/json")


def _format() -> str:
    given = request.form.get("format", "")
    if given not in FORMATS:
        raise InputError("format", given, f"expected one of {', '.join(FORMATS)}")
    return given


def _download(parts: Iterator[bytes], name: str, mimetype: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    return Response(parts, mimetype=mimetype, headers=headers)


def _before(batches: Iterator[pa.RecordBatch], until: int | None) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        kept = (
            batch if until is None else batch.filter(pc.less(batch.column("timestamp_us"), until))
        )
        if kept.num_rows:
            yield kept


def _item_batches(database: Database) -> Iterator[pa.RecordBatch]:
    """Pages of the catalogue, by id."""
    after: str | None = None
    while True:
        with database.connect() as connection:
            page = item_rows.list_items(connection, None, None, PAGE_ITEMS, after)
        if page:
            rows = [
                {
                    "item_id": one.item_id,
                    "title": one.title,
                    "categories": orjson.dumps(one.categories).decode(),
                    "price": one.price,
                    "image": one.image,
                    "available": one.available,
                    "properties": orjson.dumps(one.properties).decode(),
                    "created_at": rfc3339(one.created_at_us),
                    "updated_at": rfc3339(one.updated_at_us),
                }
                for one in page
            ]
            yield pa.RecordBatch.from_pylist(rows, ITEM_SCHEMA)
        if len(page) < PAGE_ITEMS:
            return
        after = page[-1].item_id
