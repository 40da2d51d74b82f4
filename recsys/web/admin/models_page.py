"""Models: the versions, one of them, two side by side; promote and roll back."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from recsys.commands import deployments
from recsys.errors import InputError
from recsys.storage.entities import version_rows
from recsys.storage.entities.version_rows import VersionRow
from recsys.web.admin import evaluations
from recsys.web.admin.access import PREFIX, done, flash, view
from recsys.web.admin.queries import PAGE_ROWS, choice, pages
from recsys.web.cursors import read_cursor, write_cursor
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_models", __name__, url_prefix=f"{PREFIX}/models")

STATES = ("candidate", "refused", "promoted", "deleted")
MAX_REASON = 500


@view(blueprint, "", role="viewer", query=("cursor", "state", "ranking"))
def index() -> str:
    """All versions, newest first."""
    before = read_cursor(request.args.get("cursor"))
    state = choice("state", STATES)
    ranking = choice("ranking", evaluations.RANKINGS)
    with services().database.connect() as connection:
        rows = version_rows.list_versions(connection, PAGE_ROWS, before, state, ranking)
        champion = version_rows.champion_name(connection)
        target = version_rows.rollback_target(connection)
        deployed = version_rows.list_deployments(connection, 8)
    more = write_cursor(rows[-1].version) if len(rows) == PAGE_ROWS else None
    return render_template(
        "admin/models.html",
        rows=rows,
        champion=champion and champion[0],
        target=target,
        deployments=deployed,
        served=evaluations.served,
        states=STATES,
        rankings=evaluations.RANKINGS,
        **pages(more),
    )


@view(blueprint, "/compare", role="viewer", repeated=("version",))
def compare() -> Any:
    """Two versions side by side; each was measured on its own window unless that is the same."""
    chosen = request.args.getlist("version")
    if len(chosen) != 2 or chosen[0] == chosen[1]:
        flash("bad", "Choose two versions to compare.")
        return redirect(url_for("admin_models.index"), 303)
    with services().database.connect() as connection:
        one, other = (version_rows.get_version(connection, version) for version in chosen)
    return render_template(
        "admin/model_compare.html",
        pair=(one, other),
        same_window=one.facts.get("window", {}).get("from_us")
        == other.facts.get("window", {}).get("from_us"),
        plots=evaluations.comparison_plots(one, other),
        paired=evaluations.paired_plot(one, other),
        changed=evaluations.settings_changed(one, other),
        facts=[_facts(row) for row in (one, other)],
    )


@view(blueprint, "/<id:version>", role="viewer")
def show(version: str) -> str:
    """One version."""
    with services().database.connect() as connection:
        row = version_rows.get_version(connection, version)
        champion = version_rows.champion_name(connection)
        target = version_rows.rollback_target(connection)
        deployed = version_rows.list_deployments(connection, 50, version)
    return render_template(
        "admin/model.html",
        row=row,
        champion=champion and champion[0],
        target=target,
        deployments=deployed,
        plots=evaluations.plots(row),
        paired=evaluations.verdict_plot(row.verdict),
        curve=evaluations.learning_curve(row),
        facts=_facts(row),
        blend=evaluations.blend(row),
    )


@view(blueprint, "/<id:version>/promote", role="operator", methods=("POST",))
def promote(version: str) -> Response:
    """Make a version the champion."""
    deployments.promote(services().database, actor(), version, _reason(), now_us())
    return done(f"{version} is the champion now.", "admin_models.show", version=version)


@view(blueprint, "/rollback", role="operator", methods=("POST",))
def roll_back() -> Response:
    """Go back to the champion before this one."""
    champion = deployments.roll_back(services().database, actor(), _reason(), now_us())
    return done(f"Rolled back: {champion} is the champion again.", "admin_models.index")


def _reason() -> str:
    """What was given as the reason. Raises InputError."""
    given = request.form.get("reason", "").strip()
    if len(given) > MAX_REASON:
        raise InputError("reason", given, f"expected {MAX_REASON} characters at most")
    return given or "by hand"


def _facts(row: VersionRow) -> dict[str, Any]:
    """What was learned from what, at which cost."""
    facts = row.facts
    curve = facts.get("learning_curve") or {}
    return {
        "events": row.event_count,
        "users": row.user_count,
        "window": facts.get("window", {}),
        "metrics": facts.get("metrics", {}),
        "seconds": curve.get("seconds"),
        "events_per_second": curve.get("events_per_second"),
        "peak_mib": facts.get("peak_mib"),
        "network_bytes": facts.get("network_bytes"),
        "checks": facts.get("checks", []),
        "breakdown": facts.get("breakdown", {}),
        "settings": facts.get("settings", {}),
        "adopted": facts.get("adopted") or {},
    }
