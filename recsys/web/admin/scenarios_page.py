"""Scenarios: how places of the shop are answered; an editor with a preview, versions and their changes."""

from __future__ import annotations

from typing import get_args

from flask import Blueprint, Response, make_response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from recsys.commands import scenarios
from recsys.commands.scenarios import ScenarioChangedError
from recsys.errors import ConflictError, InputError, NotEnoughDataError, NotFoundError
from recsys.events.fields import Event
from recsys.events.times import DAY_US
from recsys.serving import answering
from recsys.serving.answers import Answer, FilteredItem, Request
from recsys.serving.context import stored_context
from recsys.serving.steering.experiments import Assigned
from recsys.serving.steering.scenario_estimate import EstimateLimits, estimate_scenario
from recsys.serving.steering.scenarios import Scenario
from recsys.serving.steering.steered_answers import left_out
from recsys.steering.scenario_spec import Fallback, Logic, ScenarioSpec
from recsys.storage.dashboard import catalogue_views
from recsys.storage.dashboard.revenue import revenue_by_scenario
from recsys.storage.entities import answer_count_rows, item_rows, scenario_rows
from recsys.storage.entities.scenario_rows import StoredScenario
from recsys.text_rules import stored_text_problem
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.admin.scenario_form import (
    ScenarioForm,
    changes,
    form_of,
    given_form,
    problem_of,
    spec_of_form,
)
from recsys.web.admin.what_if_page import moved
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_scenarios", __name__, url_prefix=f"{PREFIX}/scenarios")

COUNTED_DAYS = 7
VERSIONS = 20
MAX_CATEGORIES = 500  # offered while a rule is typed
PREVIEW_K = 12
MAX_SEQUENCE = 20  # items of a hand-made sequence
ESTIMATE_LIMITS = EstimateLimits(answers=1_000, seconds=10.0)  # somebody waits for it
PREVIEWED = ("preview_user", "preview_items")


@view(blueprint, "", role="viewer")
def index() -> str:
    """The scenarios, with the answers, clicks and revenue of the last days."""
    now = now_us()
    since, currency = now - COUNTED_DAYS * DAY_US, services().settings.attribution.currency
    with services().database.connect() as connection:
        rows = scenario_rows.list_scenarios(connection)
        counted = answer_count_rows.counts(connection, since, now, ["scenario"])
        earned = revenue_by_scenario(connection, since, now, currency)
    counts = {one["scenario"]: one for one in counted}
    stored = {one.name for one in rows}
    labels = [one for name, one in counts.items() if name and name not in stored]
    return render_template(
        "admin/scenarios.html",
        rows=rows,
        counts=counts,
        earned=earned,
        labels=labels,
        days=COUNTED_DAYS,
    )


@view(blueprint, "/new", role="operator", query=("name",))
def new() -> Response:
    """The editor of a scenario that there is not yet."""
    return _editor(request.args.get("name", "")[:64], None, form_of(ScenarioSpec()))


@view(blueprint, "/new", role="operator", methods=("POST",))
def create() -> AnyResponse:
    """Store a scenario's first version."""
    return _save(request.form.get("name", "").strip())


@view(blueprint, "/one/<name>", role="viewer")
def show(name: str) -> Response:
    """A scenario: the editor, a preview, and its versions."""
    with services().database.connect() as connection:
        stored = scenario_rows.get_scenario(connection, name)
    if stored is None:
        raise NotFoundError("scenario", name)
    return _editor(name, stored, form_of(stored.spec))


@view(blueprint, "/one/<name>", role="operator", methods=("POST",))
def save(name: str) -> AnyResponse:
    """Store the next version, unless somebody stored one meanwhile."""
    return _save(name)


@view(blueprint, "/one/<name>/rollback", role="operator", methods=("POST",))
def roll_back(name: str) -> AnyResponse:
    """Go back to an earlier version."""
    version = _version("version")
    done_now = scenarios.roll_back(services().database, actor(), name, version, now_us())
    message = f"{name} is answered as version {version} says, now version {done_now.version}."
    return done(message, "admin_scenarios.show", name=name)


@view(blueprint, "/one/<name>/delete", role="operator", methods=("POST",))
def delete(name: str) -> AnyResponse:
    """Let the name be a label again."""
    scenarios.delete_scenario(services().database, actor(), name, now_us())
    return done(f"Scenario {name} deleted. Its versions are kept.", "admin_scenarios.index")


@view(blueprint, "/preview", role="viewer", methods=("POST",))
def preview() -> str:
    """A part of the editor: the list as it is and as it would be, and what the rules leave out."""
    name = request.form.get("name", "")[:64]
    try:
        asked = _asked()
        spec = spec_of_form(request.form)
        shared = services()
        with shared.database.connect() as connection:
            scenarios.check_spec(connection, spec, shared.recommender.catalogue, now_us())
            stored = scenario_rows.get_scenario(connection, name)
        after, gone = _answer_by(asked, spec)
        before = _answer_by(asked, stored.spec)[0] if stored is not None else _plain_answer(asked)
    except InputError as error:
        return render_template("admin/scenario_preview.html", problem=problem_of(error))
    places = {one.item_id: one.rank for one in before.items}
    return render_template(
        "admin/scenario_preview.html",
        before=before,
        after=after,
        stored=stored,
        moved={one.item_id: moved(places.get(one.item_id), one.rank) for one in after.items},
        gone=gone,
    )


@view(blueprint, "/estimate", role="operator", methods=("POST",))
def estimate() -> str:
    """A part of the editor: what the scenario as edited would have earned, by the log."""
    shared, now = services(), now_us()
    try:
        spec = spec_of_form(request.form)
        with shared.database.connect() as connection:
            scenarios.check_spec(connection, spec, shared.recommender.catalogue, now)
        name = request.form.get("name", "")[:64]
        model = request.form.get("estimate_model", "").strip() or None
        found = estimate_scenario(
            shared.recommender, name, spec, ESTIMATE_LIMITS, now, model_version=model
        )
    except InputError as error:
        return render_template("admin/scenario_estimate.html", problem=problem_of(error))
    except (NotEnoughDataError, NotFoundError) as error:
        return render_template("admin/scenario_estimate.html", problem=f"{error}.")
    return render_template("admin/scenario_estimate.html", estimate=found)


def _asked() -> Request:
    """Whom the preview is for: a user, or a sequence of items. Raises InputError."""
    user_id, text = (request.form.get(name, "").strip() for name in PREVIEWED)
    items = [one.strip() for one in text.split(",") if one.strip()]
    if len(items) > MAX_SEQUENCE:
        raise InputError("preview_items", text, f"Expected {MAX_SEQUENCE} items at most")
    for value in (*items, *([user_id] if user_id else [])):
        if problem := stored_text_problem(value):
            raise InputError("preview_items", value, problem)
    now, serving = now_us(), services().settings.serving
    events = tuple(
        Event(
            user_id=None, session_id="preview", item_id=item_id, event_type="view",
            timestamp_us=now - (len(items) - at) * 30_000_000, event_id=f"step {at + 1}",
        )
        for at, item_id in enumerate(items)
    )  # fmt: skip
    return Request(
        user_id=user_id or None,
        events=events,
        k=PREVIEW_K,
        exclude_seen=serving.exclude_seen,
        left_open=frozenset({"k", "exclude_seen"}),
    )


def _answer_by(asked: Request, spec: ScenarioSpec) -> tuple[Answer, list[FilteredItem]]:
    """What `spec` would answer, and what it leaves out."""
    recommender, now = services().recommender, now_us()
    steered = Scenario(spec).applied(asked)
    assigned = Assigned(steered)  # no experiment changes what is looked at here
    context = stored_context(recommender, steered, recommender.choose_model(assigned), now)
    answer = answering.answer_assigned(recommender, assigned, now)
    return answer, left_out(recommender, context)


def _plain_answer(asked: Request) -> Answer:
    return answering.answer_assigned(services().recommender, Assigned(asked), now_us())


def _version(field: str) -> int:
    """The version that a field of the form names. Raises InputError."""
    text = request.form.get(field, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(field, text, "expected the number of a version")
    return int(text)


def _save(name: str) -> AnyResponse:
    """Store what the form says, or show it again as it was typed, with what keeps it from being stored."""
    shared, based_on = services(), _version("based_on")
    try:
        spec = spec_of_form(request.form)
        stored = scenarios.put_scenario(
            shared.database,
            actor(),
            name,
            spec,
            now_us(),
            shared.recommender.catalogue,
            based_on,
        )
    except InputError as error:
        return _edited_again(name, based_on, error=error)
    except ScenarioChangedError as error:
        if based_on == 0:
            taken = InputError("name", name, "There is a scenario of this name already")
            return _edited_again(name, 0, 409, taken)
        return _edited_again(name, error.present or 0, 409, conflict=error)
    except ConflictError as error:
        return _edited_again(name, based_on, 409, conflict=error)
    message = f"Version {stored.version} of {name} answers from the next request on."
    if stored.version == based_on:
        message = "Nothing was changed."
    return done(message, "admin_scenarios.show", name=name)


def _edited_again(
    name: str,
    based_on: int,
    status: int = 422,
    error: InputError | None = None,
    conflict: ConflictError | None = None,
) -> Response:
    """The editor with what was typed. `based_on`: the version that saving will be an answer to; 0: none."""
    stored = None
    if based_on:
        with services().database.connect() as connection:
            stored = scenario_rows.get_scenario(connection, name)
    return _editor(name, stored, given_form(request.form, error), status, based_on, conflict)


def _editor(
    name: str,
    stored: StoredScenario | None,
    form: ScenarioForm,
    status: int = 200,
    based_on: int | None = None,
    conflict: ConflictError | None = None,
) -> Response:
    with services().database.connect() as connection:
        versions = []
        if stored is not None:  # one more than is shown, for what the last one changed
            versions = scenario_rows.list_versions(connection, name, VERSIONS + 1)
        properties = sorted(item_rows.property_names(connection))
        categories = catalogue_views.categories(connection, MAX_CATEGORIES)
    before = [*(one.spec for one in versions[1:]), None]
    history = [(one, changes(was, one.spec)) for one, was in zip(versions, before, strict=False)][
        :VERSIONS
    ]
    page = render_template(
        "admin/scenario.html",
        name=name,
        stored=stored,
        form=form,
        history=history,
        based_on=based_on if based_on is not None else stored.version if stored is not None else 0,
        conflict=conflict,
        logics=get_args(Logic),
        fallbacks=get_args(Fallback),
        names=[*("price", "category", "title", "item_id"), *properties],
        categories=categories,
    )
    return make_response(page, status)
