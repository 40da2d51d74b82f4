"""Imports of files: what became of each, taking one back, and where a new file is dropped."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from recsys.commands import imports
from recsys.ingest.uploads import open_uploads
from recsys.storage.entities import import_rows
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.admin.queries import PAGE_ROWS, pages
from recsys.web.admin.sorting import SORTED_ROWS, Columns, SortedList, sort_of
from recsys.web.admin.uploads_page import refused
from recsys.web.cursors import read_number, write_cursor
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_imports", __name__, url_prefix=f"{PREFIX}/data-quality/imports")


def _count(name: str, row: import_rows.ImportRow) -> int | None:
    return row.counts.get(name)


NEWEST = "-started"
COUNTS = {  # a column's title -> its count
    "Read": "read",
    "Accepted": "accepted",
    "Duplicates": "duplicates",
    "Rejected": "rejected",
    "Left out": "skipped",
}
COLUMNS: Columns = {
    "started": lambda row: row.id,
    "file": lambda row: row.source,
    "state": lambda row: row.state,
    **{name: partial(_count, name) for name in COUNTS.values()},
}


@view(blueprint, "", role="viewer", query=("sort", "cursor"))
def index() -> str:
    """Imports, newest first or sorted by a column, and where a file is dropped."""
    sort, more = sort_of(COLUMNS, NEWEST), None
    with services().database.connect() as connection:
        if sort == NEWEST:
            before = read_number(request.args.get("cursor"))
            rows = import_rows.list_imports(connection, PAGE_ROWS + 1, before)
            page = rows[:PAGE_ROWS]
            more = write_cursor(str(page[-1].id)) if len(rows) > PAGE_ROWS else None
        else:
            rows = import_rows.list_imports(connection, SORTED_ROWS)
            page, more = SortedList(COLUMNS, sort, lambda row: row.id).page(rows)
    uploads = open_uploads(services().settings)
    waiting = uploads.of_account(g.account.name)
    return render_template(
        "admin/imports.html",
        rows=page,
        sort=sort,
        counts=COUNTS,
        refused=refused(),
        max_bytes=uploads.max_bytes,
        waiting=waiting if waiting is not None and waiting.received else None,
        **pages(more),
    )


@view(blueprint, "/<int:import_id>", role="viewer")
def show(import_id: int) -> str:
    """One import: what became of its rows."""
    with services().database.connect() as connection:
        one = import_rows.get_import(connection, import_id)
        undoing = imports.undo_run(connection, import_id)
    if undoing is not None and undoing.state == "succeeded":
        undoing = None
    return render_template(
        "admin/import.html",
        one=one,
        options=_words(one.options),
        undoing=undoing,
        is_whole=import_rows.REMOVED not in one.counts,
    )


@view(blueprint, "/<int:import_id>/undo", role="operator", methods=("POST",))
def undo(import_id: int) -> AnyResponse:
    """Ask for an import to be taken back."""
    run_id = imports.ask_undo(services().database, actor(), import_id, now_us())
    return done(f"Undo of import {import_id} requested.", "admin_jobs.run", run_id=run_id)


def _words(options: dict[str, Any]) -> list[tuple[str, str]]:
    """The options of an import that differ from the defaults, for people."""
    words = []
    for name, value in options.items():
        if isinstance(value, dict):
            given = {key: one for key, one in value.items() if one not in (None, [], ())}
            value = ", ".join(f"{key}={one}" for key, one in given.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        words.append((name.replace("_", " "), str(value)))
    return words
