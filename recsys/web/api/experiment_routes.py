"""Experiments: drafted, started, reported, stopped, promoted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint

from recsys.commands import experiments
from recsys.errors import InputError
from recsys.events.identity import sequence_key
from recsys.events.times import rfc3339
from recsys.serving.uplift import control_arm
from recsys.steering.event_value import ConversionRules
from recsys.steering.experiment_spec import read_experiment
from recsys.storage.dashboard import experiment_views
from recsys.storage.entities import experiment_rows
from recsys.storage.entities.experiment_rows import ExperimentRow
from recsys.web.api.experiment_schemas import (
    DraftDeleted,
    ExperimentDetails,
    ExperimentIn,
    ExperimentOut,
    ExperimentPage,
    ExperimentReportOut,
    PromoteArmBody,
    PromotedAnswer,
    StartBody,
    TesterBody,
)
from recsys.web.cursors import read_cursor, write_cursor
from recsys.web.fields import PageQuery
from recsys.web.operations import operation
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("experiments", __name__, url_prefix="/api/v1")


@operation(blueprint, "GET", "/experiments", scope="read", query=PageQuery, answer=ExperimentPage)
def list_experiments(query: PageQuery) -> dict[str, Any]:
    """List experiments, newest first."""
    shared = services()
    before = experiment_views.position(read_cursor(query.cursor))
    with shared.database.connect() as connection:
        page = experiment_rows.list_experiments(connection, query.limit, before)
        control = control_arm(connection, shared.settings.serving.control_share, now_us())
    last = page[-1] if len(page) == query.limit else None
    return {
        "experiments": [_experiment(row) for row in page],
        "control": asdict(control),
        "next_cursor": last and write_cursor(f"{last.created_at_us} {last.name}"),
    }


@operation(
    blueprint,
    "POST",
    "/experiments",
    scope="admin",
    body=ExperimentIn,
    answer=ExperimentOut,
    statuses=(200, 409),
    example={
        "name": "hold-out",
        "arms": [{"name": "now"}, {"name": "popular", "hold_out": True}],
        "allocation": 0.1,
        "metric": "value",
    },
)
def draft_experiment(body: ExperimentIn) -> dict[str, Any]:
    """Draft an experiment, in place of a draft of the same name; nobody is in it before it starts."""
    spec = read_experiment(body.model_dump(exclude={"name"}))
    return _experiment(experiments.draft(services().database, actor(), body.name, spec, now_us()))


@operation(
    blueprint,
    "GET",
    "/experiments/<id:name>",
    scope="read",
    answer=ExperimentDetails,
    statuses=(200, 404),
)
def get_experiment(name: str) -> dict[str, Any]:
    """Get one experiment, its testers and, of a draft, what it could find."""
    return _details(name)


@operation(
    blueprint,
    "DELETE",
    "/experiments/<id:name>",
    scope="admin",
    answer=DraftDeleted,
    statuses=(200, 404, 409),
)
def delete_experiment(name: str) -> dict[str, Any]:
    """Delete a draft; what was started stays with its report."""
    experiments.delete_draft(services().database, actor(), name, now_us())
    return {"deleted": name}


@operation(
    blueprint,
    "POST",
    "/experiments/<id:name>/start",
    scope="admin",
    body=StartBody,
    answer=ExperimentOut,
    statuses=(200, 404, 409),
)
def start_experiment(name: str, body: StartBody) -> dict[str, Any]:
    """Start a draft, or widen a running experiment; whoever is in stays in the same arm."""
    database = services().database
    return _experiment(experiments.start(database, actor(), name, body.allocation, now_us()))


@operation(
    blueprint,
    "POST",
    "/experiments/<id:name>/stop",
    scope="admin",
    answer=ExperimentOut,
    statuses=(200, 404, 409),
)
def stop_experiment(name: str) -> dict[str, Any]:
    """Stop an experiment: everybody is answered alike again."""
    return _experiment(experiments.stop(services().database, actor(), name, now_us()))


@operation(
    blueprint,
    "POST",
    "/experiments/<id:name>/promote",
    scope="admin",
    body=PromoteArmBody,
    answer=PromotedAnswer,
    statuses=(200, 404, 409),
)
def promote_experiment(name: str, body: PromoteArmBody) -> dict[str, Any]:
    """Give an arm to everybody, and end the experiment."""
    _, arm = experiments.promote(services().database, actor(), name, body.arm, now_us())
    return {"name": name, "promoted": arm}


@operation(
    blueprint,
    "PUT",
    "/experiments/<id:name>/testers",
    scope="admin",
    body=TesterBody,
    answer=ExperimentDetails,
    statuses=(200, 404, 409),
)
def put_tester(name: str, body: TesterBody) -> dict[str, Any]:
    """Show an arm to one user or session, uncounted, whatever the hash says."""
    if (body.user_id is None) == (body.session_id is None):
        raise InputError("user_id", body.user_id, "expected either user_id or session_id")
    unit = sequence_key(body.user_id, body.session_id)
    experiments.set_tester(services().database, actor(), name, unit, body.arm, now_us())
    return _details(name)


@operation(
    blueprint,
    "GET",
    "/experiments/<id:name>/report",
    scope="read",
    answer=ExperimentReportOut,
    statuses=(200, 404),
)
def report_experiment(name: str) -> dict[str, Any]:
    """Report an experiment by arm; its intervals hold at every look, so it may be watched."""
    with services().database.connect() as connection:
        row = experiment_rows.get_experiment(connection, name)
        return experiment_views.view(connection, row).plain()


def _details(name: str) -> dict[str, Any]:
    shared = services()
    with shared.database.connect() as connection:
        row = experiment_rows.get_experiment(connection, name)
        testers = experiment_rows.testers(connection).get(name, {})
        found = []
        if row.state == "draft":
            rules = ConversionRules.of(shared.settings.attribution)
            found = experiment_views.plan(connection, row.spec, rules, now_us())
    return {
        **_experiment(row),
        "testers": [_tester(unit, arm) for unit, arm in testers.items()],
        "minimum_detectable": experiment_views.plan_json(found),
    }


def _experiment(row: ExperimentRow) -> dict[str, Any]:
    def at(us: int | None) -> str | None:
        return None if us is None else rfc3339(us)

    return {
        "name": row.name,
        "state": row.state,
        **row.spec.plain,
        "author": row.author,
        "created_at": at(row.created_at_us),
        "started_at": at(row.started_at_us),
        "stopped_at": at(row.stopped_at_us),
        "promoted": row.promoted,
    }


def _tester(unit: str, arm: str) -> dict[str, Any]:
    user, session = (unit[2:] if unit.startswith(kind) else None for kind in ("u:", "s:"))
    return {"user_id": user, "session_id": session, "arm": arm}
