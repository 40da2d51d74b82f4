"""Models: the versions, one of them, two side by side; promote and roll back."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from recsys.commands import deployments
from recsys.errors import InputError
from recsys.events.times import DAY_US
from recsys.storage.dashboard.revenue import revenue
from recsys.storage.entities import version_rows
from recsys.web.admin import evaluations
from recsys.web.admin.access import PREFIX, done, flash, view
from recsys.web.admin.evaluations import Version
from recsys.web.admin.queries import choice, pages
from recsys.web.admin.sorting import SORTED_ROWS, Columns, SortedList, sort_of
from recsys.web.services import actor, now_us, services

blueprint = Blueprint("admin_models", __name__, url_prefix=f"{PREFIX}/models")

STATES = ("candidate", "refused", "promoted", "deleted")
MAX_REASON = 500
MONEY_DAYS = 30  # of what a version's answers brought
NARROWED_BY = ("state", "ranking")
COLUMNS: Columns = {
    "version": lambda row: row.version,
    "state": lambda row: row.state,
    "ranking": lambda row: row.ranking,
    "recall": lambda row: evaluations.served(row, "recall@20").value,
    "mrr": lambda row: evaluations.served(row, "mrr@20").value,
    "data": lambda row: row.data_end_us,
}


@view(blueprint, "", role="viewer", query=(*NARROWED_BY, "sort", "cursor"))
def index() -> str:
    """All versions, newest first, or sorted by a column."""
    sort = sort_of(COLUMNS, "-version")
    state = choice("state", STATES)
    ranking = choice("ranking", evaluations.RANKINGS)
    with services().database.connect() as connection:
        rows = version_rows.list_versions(connection, SORTED_ROWS, None, state, ranking)
        champion = version_rows.champion_name(connection)
        target = version_rows.rollback_target(connection)
        deployed = version_rows.list_deployments(connection, 8)
    page, more = SortedList(COLUMNS, sort, lambda row: row.version).page(rows)
    return render_template(
        "admin/models.html",
        rows=page,
        sort=sort,
        query={k: v for k, v in request.args.items() if k in NARROWED_BY},
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
        rows = [version_rows.get_version(connection, version) for version in chosen]
    one, other = (Version.of(row) for row in rows)
    return render_template(
        "admin/model_compare.html",
        pair=(one, other),
        same_window=one.facts.window.from_us == other.facts.window.from_us,
        plots=evaluations.comparison_plots(one, other),
        paired=evaluations.paired_plot(one, other),
        changed=evaluations.settings_changed(one, other),
    )


@view(blueprint, "/<id:version>", role="viewer")
def show(version: str) -> str:
    """One version."""
    with services().database.connect() as connection:
        row = version_rows.get_version(connection, version)
        champion = version_rows.champion_name(connection)
        target = version_rows.rollback_target(connection)
        deployed = version_rows.list_deployments(connection, 50, version)
        now, currency = now_us(), services().settings.attribution.currency
        money = revenue(connection, now - MONEY_DAYS * DAY_US, now, currency, version)
    one = Version.of(row)
    return render_template(
        "admin/model.html",
        row=row,
        money=money,
        verdict=one.verdict,
        facts=one.facts,
        champion=champion and champion[0],
        target=target,
        deployments=deployed,
        plots=evaluations.plots(one),
        paired=evaluations.verdict_plot(one.verdict),
        curve=evaluations.learning_curve(one),
        blends=evaluations.blends(one),
    )


@view(blueprint, "/<id:version>/promote", role="operator", methods=("POST",))
def promote(version: str) -> Response:
    """Make a version the champion."""
    deployments.promote(services().database, actor(), version, _reason(), now_us())
    return done(f"{version} is now the champion.", "admin_models.show", version=version)


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
