"""Experiments: the list, one with its report, a new one; started, widened, stopped, promoted."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, make_response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from recsys.commands import experiments
from recsys.errors import InputError, RecsysError
from recsys.events.times import SECOND_US
from recsys.serving.uplift import control_arm
from recsys.steering.event_value import ConversionRules
from recsys.steering.experiment_report import NOUNS, ArmReport, verdict
from recsys.steering.experiment_spec import MAX_NOTE, METRICS, Metric, read_experiment
from recsys.storage.dashboard import experiment_views
from recsys.storage.dashboard.experiment_views import ExperimentView
from recsys.storage.entities import experiment_rows, scenario_rows, version_rows
from recsys.web.admin.access import PREFIX, done, view
from recsys.web.admin.queries import PAGE_ROWS, pages
from recsys.web.admin.svg import Chart, Interval, Series, intervals
from recsys.web.cursors import read_cursor, write_cursor
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_experiments", __name__, url_prefix=f"{PREFIX}/experiments")

FORM_ARMS = 4  # of the form; more by REST
KINDS = {
    "now": "as everyone is answered",
    "scenario_version": "scenario version",
    "model_version": "model version",
    "settings": "settings (JSON)",
    "hold_out": "hold-out: popular items",
}


@view(blueprint, "", role="viewer", query=("cursor",))
def index() -> str:
    """All experiments, newest first, and champion and control beside them."""
    shared = services()
    before = experiment_views.position(read_cursor(request.args.get("cursor")))
    with shared.database.connect() as connection:
        rows = experiment_rows.list_experiments(connection, PAGE_ROWS, before)
        views = [experiment_views.view(connection, row, with_looks=False) for row in rows]
        control = control_arm(connection, shared.settings.serving.control_share, now_us())
    last = rows[-1] if len(rows) == PAGE_ROWS else None
    more = None if last is None else write_cursor(f"{last.created_at_us} {last.name}")
    return render_template(
        "admin/experiments.html",
        views=views,
        control=control,
        nouns=NOUNS,
        verdict=verdict,
        **pages(more),
    )


@view(blueprint, "/new", role="operator")
def new() -> Response:
    """The form for a draft."""
    return _form()


@view(blueprint, "/new", role="operator", methods=("POST",))
def create() -> AnyResponse:
    """Draft an experiment; what it could find is told before it starts."""
    form = request.form
    try:
        spec = read_experiment(_given())
        name = form.get("name", "").strip()
        row = experiments.draft(services().database, actor(), name, spec, now_us())
    except RecsysError as error:
        status = 422 if isinstance(error, InputError) else 409
        return _form(error.field if isinstance(error, InputError) else "name", str(error), status)
    return done(f"Experiment {row.name} is drafted.", "admin_experiments.show", experiment=row.name)


@view(blueprint, "/<id:experiment>", role="viewer")
def show(experiment: str) -> str:
    """One experiment and its report."""
    shared = services()
    with shared.database.connect() as connection:
        row = experiment_rows.get_experiment(connection, experiment)
        found = experiment_views.view(connection, row)
        testers = experiment_rows.testers(connection).get(experiment, {})
        plan = []
        if row.state == "draft":
            rules = ConversionRules.of(shared.settings.attribution)
            plan = experiment_views.plan(connection, row.spec, rules, now_us())
    return render_template(
        "admin/experiment.html",
        row=row,
        view=found,
        report=found.report,
        verdict=verdict(row.spec, found.report),
        plan=plan,
        testers=testers,
        chart=_chart(found),
        plots={metric: _plot(found, metric) for metric in METRICS},
        nouns=NOUNS,
        currency=shared.settings.attribution.currency,
    )


@view(blueprint, "/<id:experiment>/start", role="operator", methods=("POST",))
def start(experiment: str) -> AnyResponse:
    """Start a draft, or widen a running experiment."""
    share = _percent("allocation")
    row = experiments.start(services().database, actor(), experiment, share, now_us())
    text = f"{row.name} runs on {row.spec.allocation:.2%} of the users."
    return done(text, "admin_experiments.show", experiment=experiment)


@view(blueprint, "/<id:experiment>/stop", role="operator", methods=("POST",))
def stop(experiment: str) -> AnyResponse:
    """Stop an experiment."""
    experiments.stop(services().database, actor(), experiment, now_us())
    return done(f"{experiment} is stopped.", "admin_experiments.show", experiment=experiment)


@view(blueprint, "/<id:experiment>/promote", role="operator", methods=("POST",))
def promote(experiment: str) -> AnyResponse:
    """Give an arm to everyone."""
    arm = request.form.get("arm", "")
    _, promoted = experiments.promote(services().database, actor(), experiment, arm, now_us())
    return done(f"Everyone gets {promoted} now.", "admin_experiments.show", experiment=experiment)


@view(blueprint, "/<id:experiment>/delete", role="operator", methods=("POST",))
def delete(experiment: str) -> AnyResponse:
    """Delete a draft."""
    experiments.delete_draft(services().database, actor(), experiment, now_us())
    return done(f"The draft {experiment} is deleted.", "admin_experiments.index")


@view(blueprint, "/<id:experiment>/testers", role="operator", methods=("POST",))
def tester(experiment: str) -> AnyResponse:
    """Show an arm to one user or session, or no more."""
    form = request.form
    unit = form.get("unit", "")
    if not unit:
        user = form.get("user", "").strip()
        if not 1 <= len(user) <= 256:
            raise InputError("user", user, "expected 1 to 256 characters")
        unit = f"u:{user}"
    arm = form.get("arm") or None
    experiments.set_tester(services().database, actor(), experiment, unit, arm, now_us())
    text = (
        "Not a tester any more." if arm is None else f"{unit[2:]} sees {arm}, and is not counted."
    )
    return done(text, "admin_experiments.show", experiment=experiment)


def _given() -> dict[str, Any]:
    """What the form says, as JSON says it. Raises InputError."""
    form = request.form
    arms: list[dict[str, Any]] = []
    for place in range(FORM_ARMS):
        name = form.get(f"arm{place}", "").strip()
        if not name:
            continue
        one: dict[str, Any] = {"name": name, "weight": form.get(f"weight{place}", "1") or "1"}
        kind, value = form.get(f"kind{place}", "now"), form.get(f"value{place}", "").strip()
        if kind == "settings":
            try:
                one["settings"] = orjson.loads(value)
            except orjson.JSONDecodeError:
                raise InputError(f"arms[{len(arms)}].settings", value, "expected JSON") from None
        elif kind == "hold_out":
            one["hold_out"] = True
        elif kind in ("scenario_version", "model_version"):
            one[kind] = value
        if form.get(f"shadow{place}"):
            one["shadow"] = True
        arms.append(one)
    return {
        "arms": arms,
        "allocation": _percent("allocation"),
        "metric": form.get("metric", "conversion"),
        "scenario": form.get("scenario", "").strip() or None,
        "group": form.get("group", "").strip() or None,
        "include_pages": bool(form.get("include_pages")),
        "note": form.get("note", "").strip()[:MAX_NOTE],
    }


def _percent(name: str) -> float:
    """A share that was given in percent. Raises InputError."""
    given = request.form.get(name, "")
    try:
        share = float(given.rstrip(" %")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise InputError(name, given, "expected more than 0 and at most 100 percent")
    return share


def _form(field: str | None = None, problem: str | None = None, status: int = 200) -> Response:
    with services().database.connect() as connection:
        versions = version_rows.list_versions(connection, 20)
        scenarios = scenario_rows.list_scenarios(connection)
    page = render_template(
        "admin/experiment_new.html",
        given=request.form,
        places=range(FORM_ARMS),
        kinds=KINDS,
        metrics=NOUNS,
        versions=[row.version for row in versions if row.state != "deleted"],
        scenarios=[one.name for one in scenarios],
        field=field,
        problem=problem,
    )
    return make_response(page, status)


def _chart(found: ExperimentView) -> Chart:
    """The uplift of the figure that decides, by the hour, with the band that holds at every look."""
    metric = found.row.spec.metric
    series = []
    for place, arm in enumerate(found.row.spec.arms[1:], 1):
        points = [point.report.arms[place].uplift[metric] for point in found.points]
        series.append(
            Series(
                f"{arm.name} − {found.row.spec.arms[0].name}",
                [None if one is None else one.estimate for one in points],
                [None if one is None else one.low for one in points],
                [None if one is None else one.high for one in points],
            )
        )
    return Chart(
        key="uplift",
        title=f"Uplift in {NOUNS[metric]}",
        x=[point.hour_us / SECOND_US for point in found.points],
        series=series,
        summary=verdict(found.row.spec, found.report),
        unit="" if metric == "value" else "%",
    )


def _plot(found: ExperimentView, metric: Metric) -> Any:
    """The uplifts of all arms on one scale; nothing where none has an interval yet."""
    scale = 1 if metric == "value" else 100  # percentage points
    rows = [
        Interval(
            arm.name,
            scale * one.estimate,
            scale * one.low,
            scale * one.high,
            text=_text(arm, metric),
        )
        for arm in found.report.arms[1:]
        if (one := arm.uplift[metric]) is not None
        if one.low is not None and one.high is not None
    ]
    return intervals(rows, f"Uplift in {NOUNS[metric]}", zero=True)


def _text(arm: ArmReport, metric: Metric) -> str:
    one = arm.uplift[metric]
    assert one is not None and one.low is not None and one.high is not None
    if metric == "value":
        return f"{one.estimate:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
    return f"{100 * one.estimate:+.2f} pp ({100 * one.low:+.2f} to {100 * one.high:+.2f})"
