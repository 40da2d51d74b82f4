"""Audit: who changed what, when, from where."""

from __future__ import annotations

import csv
import io
import json

from flask import Blueprint, Response, render_template, request

from recsys.errors import InputError
from recsys.events.export_files import guarded
from recsys.events.times import DAY_US, rfc3339
from recsys.storage.engine.database import Connection
from recsys.storage.entities import audit_rows
from recsys.storage.entities.audit_rows import AuditRow
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.queries import PAGE_ROWS, day_start, pages, with_query, words
from recsys.web.cursors import read_number, write_cursor
from recsys.web.services import services

blueprint = Blueprint("admin_audit", __name__, url_prefix=f"{PREFIX}/audit")

FILTERS = ("actor", "action", "subject", "from", "to")
MAX_EXPORT = 10_000  # lines, the newest
COLUMNS = ("at", "actor", "role", "action", "subject", "details", "address", "request_id")
TONES = {
    "refused": "bad", "erase": "bad", "revoke": "bad", "disable": "bad", "rollback": "warn",
    "cancel": "warn", "promote": "good", "create": "accent",
}  # fmt: skip


@view(blueprint, "", role="operator", query=(*FILTERS, "cursor"))
def index() -> str:
    """A page of the log, newest first."""
    before, filters = read_number(request.args.get("cursor")), _filters()
    with services().database.connect() as connection:
        actors, actions = audit_rows.names_in_use(connection)
        rows = _rows(connection, PAGE_ROWS + 1, before)
    shown = rows[:PAGE_ROWS]
    more = write_cursor(str(shown[-1].id)) if len(rows) > PAGE_ROWS else None
    return render_template(
        "admin/audit.html",
        rows=shown,
        tones=TONES,
        filters=filters,
        filtered=any((*_days(), *filters.values())),
        actors=actors,
        actions=actions,
        max_export=MAX_EXPORT,
        export=with_query(cursor=None).replace(f"{PREFIX}/audit", f"{PREFIX}/audit/export.csv", 1),
        **pages(more),
    )


@view(blueprint, "/export.csv", role="operator", query=FILTERS)
def export() -> Response:
    """The newest lines that fit the filters, as CSV."""
    with services().database.connect() as connection:
        rows = _rows(connection, MAX_EXPORT)
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    for row in rows:
        details = json.dumps(row.details, ensure_ascii=False) if row.details else ""
        cells = (row.actor, row.role, row.action, row.subject, details, row.address, row.request_id)
        writer.writerow([rfc3339(row.at_us), *(guarded(cell or "") for cell in cells)])
    headers = {"Content-Disposition": "attachment; filename=audit.csv"}
    return Response(written.getvalue(), mimetype="text/csv", headers=headers)


def _rows(connection: Connection, limit: int, before: int | None = None) -> list[AuditRow]:
    since_us, until_us = _days()
    actor, action, subject = _filters().values()
    rows = audit_rows.list_audit(
        connection, limit, before, actor, action, subject, since_us, until_us
    )
    if not rows:
        audit_rows.check_names(connection, actor, action)
    return rows


def _filters() -> dict[str, str | None]:
    """Who, what and to which thing, as the query string asks."""
    return {name: words(name) for name in ("actor", "action", "subject")}


def _days() -> tuple[int | None, int | None]:
    """The stretch of time, [since, until) in µs, as far as days are named. Raises InputError."""
    since_us = day_start(request.args, "from") if request.args.get("from") else None
    until_us = day_start(request.args, "to") + DAY_US if request.args.get("to") else None
    if since_us is not None and until_us is not None and until_us <= since_us:
        raise InputError("to", request.args["to"], "expected a day that is not before `from`")
    return since_us, until_us
