"""A file on its way from the browser to the events: its parts, its columns, the check, the import.

A request takes one part of a file, or looks at its first rows; the check and the import are runs that
the scheduler does (docs/decisions/0028).
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, redirect, render_template, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Response as AnyResponse

from recsys.commands import imports
from recsys.errors import ConflictError, InputError, shown
from recsys.ingest import file_preview
from recsys.ingest.layouts import LAYOUTS, MEANINGS
from recsys.ingest.reading_form import FIELDS, UNITS, command_line, read_options, suggested
from recsys.ingest.uploads import PART_BYTES, Upload, Uploads, open_uploads
from recsys.models.rankers import LABELS
from recsys.storage.entities import job_rows, lease_rows
from recsys.storage.entities.job_rows import ENDED, RunRow
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.admin.problems import scheduler_silence_us
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_uploads", __name__, url_prefix=f"{PREFIX}/data-quality/uploads")

# How a form names what `events import` has as an option.
LABELLED = {
    "--map": "Columns", "--unit": "Unit", "--format": "Format", "--time-format": "Time format",
    "--timezone": "Time zone", "--default-type": "Default type", "--columns": "Column names",
    "--delimiter": "Delimiter", "--encoding": "Encoding",
}  # fmt: skip
BAR_CARDS = (
    ("check-lengths", "Sequence length", "users by number of events", "lengths", "length", "sequences"),
    ("check-gaps", "Time between events", "from one event of a user to the next", "gaps", "gap", "steps"),
)  # fmt: skip


@view(blueprint, "", role="operator", methods=("POST",))
def begin() -> dict[str, Any]:
    """Announce a file by `name` and `size`; where its parts go."""
    services().recommender.source.check_writable()
    uploads, size = _uploads(), _bytes("size", request.form.get("size", ""))
    earlier = uploads.of_account(g.account.name)
    if earlier is not None and not _is_imported(earlier):
        imports.require_idle(services().database, earlier)
    made = uploads.begin(g.account.name, request.form.get("name", ""), size, now_us())
    return {
        "parts": url_for(".add_part", upload_id=made.upload_id),
        "page": url_for(".uploaded", upload_id=made.upload_id),
        "part_bytes": min(PART_BYTES, services().settings.serving.max_body_bytes),
    }


@view(blueprint, "/<upload_id>/parts", role="operator")
def received(upload_id: str) -> dict[str, int]:
    """How many bytes of a file are there: where to go on after a failure."""
    return {"received": _upload(upload_id).received}


@view(blueprint, "/<upload_id>/parts", role="operator", methods=("POST",), query=("offset",))
def add_part(upload_id: str) -> dict[str, int]:
    """Add a file's next bytes, which begin at `offset`; how many there are then."""
    if (request.content_length or 0) > PART_BYTES:
        raise RequestEntityTooLarge
    uploads, one = _uploads(), _upload(upload_id)
    offset = _bytes("offset", request.args.get("offset", ""))
    one = uploads.append(one, offset, request.get_data())
    if one.complete:
        uploads.choose(one, _suggested(uploads, one))
    return {"received": one.received}


@view(blueprint, "/<upload_id>", role="operator")
def uploaded(upload_id: str) -> str | AnyResponse:
    """A file that has arrived: its columns, ten events, the check, the import."""
    uploads, one = _uploads(), _upload(upload_id)
    run = _run_of(one)
    if run is not None and (import_id := _imported(run)) is not None:
        return redirect(url_for("admin_imports.show", import_id=import_id), 303)
    if not one.complete:
        return render_template("admin/upload.html", one=one, run=None, report=None)
    report = uploads.report(one)
    return render_template(
        "admin/upload.html",
        one=one,
        run=run,
        running=run is not None and run.state not in ENDED,
        nobody=_nobody(run),
        refused=refused(),
        report=report,
        bars=[] if report is None else _bars(report),
        labels=LABELS,
        meanings=MEANINGS,
        formats=list(LAYOUTS),
        units=UNITS,
        command=command_line(one.name, one.reading or {}),
        **_looked_at(uploads, one),
    )


@view(blueprint, "/<upload_id>/live", role="operator", live=True, query=("shown",))
def live(upload_id: str) -> Response | str:
    """How far the file's run is; the page is loaded anew, or the import's, once it has ended."""
    one = _upload(upload_id)
    run = _run_of(one)
    if run is None or run.state in ENDED:
        import_id = None if run is None else _imported(run)
        if import_id is None:
            return Response(headers={"HX-Refresh": "true"})
        return Response(headers={"HX-Redirect": url_for("admin_imports.show", import_id=import_id)})
    if request.args.get("shown") == f"{run.state} {run.stage} {run.progress}":
        return Response(status=204)
    return render_template("admin/upload_live.html", one=one, run=run, nobody=_nobody(run))


@view(blueprint, "/<upload_id>/columns", role="operator", methods=("POST",))
def choose(upload_id: str) -> AnyResponse:
    """Settle how a file is read, and check it where that was asked for."""
    uploads, one = _uploads(), _upload(upload_id)
    given = {name: request.form.get(name, "").strip() for name in FIELDS}
    reading = {name: text for name, text in given.items() if text}
    read_options(reading)  # raises InputError for what no file is read by
    imports.require_idle(services().database, one)
    one = uploads.choose(one, reading)
    if request.form.get("then") == "check":
        imports.ask_check(services().database, uploads, one, now_us())
    return redirect(url_for(".uploaded", upload_id=one.upload_id), 303)


@view(blueprint, "/<upload_id>/import", role="operator", methods=("POST",))
def import_now(upload_id: str) -> AnyResponse:
    """Ask for the import of a file that was checked."""
    services().recommender.source.check_writable()
    one = _upload(upload_id)
    imports.ask_import(services().database, actor(), _uploads(), one, now_us())
    return redirect(url_for(".uploaded", upload_id=one.upload_id), 303)


@view(blueprint, "/<upload_id>/discard", role="operator", methods=("POST",))
def discard(upload_id: str) -> AnyResponse:
    """Delete an uploaded file."""
    one = _upload(upload_id)
    if not _is_imported(one):
        imports.require_idle(services().database, one)
    _uploads().delete(one)
    return done(f"{one.name} was discarded; nothing was imported.", "admin_imports.index")


def refused() -> str | None:
    """Why no file can be imported; None where one can."""
    try:
        services().recommender.source.check_writable()
    except ConflictError as error:
        return str(error)
    return None


def _bytes(name: str, text: str) -> int:
    """A number of bytes. Raises InputError."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InputError(name, text, "expected a number of bytes")
    return int(text)


def _uploads() -> Uploads:
    return open_uploads(services().settings)


def _upload(upload_id: str) -> Upload:
    """An upload of the account at hand. Raises NotFoundError."""
    return _uploads().get(upload_id, g.account.name)


def _run_of(one: Upload) -> RunRow | None:
    """The run that was asked for last."""
    run_id = one.import_run or one.check_run
    if run_id is None:
        return None
    with services().database.connect() as connection:
        return job_rows.get_run(connection, run_id)


def _imported(run: RunRow) -> int | None:
    """The import that a run has made; None before it has."""
    if run.job != "import" or run.state != "succeeded":
        return None
    found = (run.outcome or {}).get("import_id")
    return None if found is None else int(found)


def _is_imported(one: Upload) -> bool:
    run = _run_of(one)
    return run is not None and _imported(run) is not None


def _nobody(run: RunRow | None) -> bool:
    """Whether a run waits and no scheduler is there to do it."""
    if run is None or run.state != "requested":
        return False
    with services().database.connect() as connection:
        lease = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    return scheduler_silence_us(lease) is None


def _suggested(uploads: Uploads, one: Upload) -> dict[str, str]:
    """How a file is read, as far as its first rows tell."""
    try:
        found = file_preview.columns_of(uploads.file(one), read_options({}))
    except InputError:  # the page says what is wrong with it
        return {}
    return suggested(found.names, found.values, now_us())


def _looked_at(uploads: Uploads, one: Upload) -> dict[str, Any]:
    """The columns of a file and its first events, or what keeps them from being read."""
    path, columns, preview, problem = uploads.file(one), None, None, None
    try:
        options = read_options(one.reading or {})
        columns = file_preview.columns_of(path, options)
        known = services().settings.event_types()
        preview = file_preview.preview(path, options, now_us(), known)
    except InputError as error:
        problem = _problem(error, one)
    return {"columns": columns, "preview": preview, "problem": problem}


def _problem(error: InputError, one: Upload) -> str:
    """What is wrong with a file, or with how it is to be read; without where it lies here."""
    if error.field == "path":
        return f"{one.name}: {error.expected}"
    label = LABELLED.get(error.field, error.field)
    value = "" if error.value is None else f" {shown(error.value)}"
    return f"{label}{value}: {error.expected}"


def _bars(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What `bar_card` shows of a check: key, title, note, rows, label, unit, total."""
    found = []
    for key, title, note, rows, label, unit in BAR_CARDS:
        bars = [(one[label], one[unit]) for one in report["sequences"][rows]]
        total = sum(number for _, number in bars)
        found.append((key, title, note, bars, label.capitalize(), unit.capitalize(), total))
    return found
