"""Search over everything, from any page by Ctrl-K or "/": pages, users, items, scenarios, experiments, versions
and runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Blueprint, g, render_template, url_for

from recsys.errors import InputError
from recsys.storage.dashboard import catalogue_views
from recsys.storage.engine.database import Connection
from recsys.storage.entities import experiment_rows, job_rows, scenario_rows, version_rows
from recsys.storage.entities.job_rows import FILE_JOBS, JOBS
from recsys.text_rules import stored_text_problem
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.pages import GROUPS
from recsys.web.admin.queries import words
from recsys.web.services import now_us, services

blueprint = Blueprint("admin_search", __name__, url_prefix=f"{PREFIX}/search")

FOUND = 6  # of each kind
VERSIONS = 200  # the newest, among which is searched
EXPERIMENTS = 200  # likewise


@dataclass(frozen=True)
class Hit:
    """One thing that was found: a link and what stands beside it."""

    title: str
    address: str
    note: str = ""


@view(blueprint, "", role="viewer", query=("q",))
def index() -> str:
    """What was found, as a page."""
    return render_template("admin/search.html", asked=words("q") or "", groups=_groups())


@view(blueprint, "/results", role="viewer", query=("q",))
def results() -> str:
    """What was found, for the search box of every page."""
    return render_template("admin/search_results.html", asked=words("q") or "", groups=_groups())


def _groups() -> list[tuple[str, list[Hit]]]:
    """Hits by kind, at most FOUND of each; the pages alone where nothing is asked for."""
    text = words("q") or ""
    if text and (problem := stored_text_problem(text)):
        raise InputError("q", text, problem)
    found = {"Pages": list(_pages(text.casefold()))}
    if text:
        with services().database.connect() as connection:
            found["Users"] = _users(connection, text)
            found["Items"] = _items(connection, text)
            found["Scenarios"] = _scenarios(connection, text.casefold())
            found["Experiments"] = _experiments(connection, text.casefold())
            found["Models"] = _versions(connection, text.casefold())
            found["Runs"] = _runs(connection, text.casefold())
    return [(kind, hits[:FOUND] if text else hits) for kind, hits in found.items() if hits]


def _pages(text: str) -> Iterator[Hit]:
    """The pages that the account at hand may open."""
    for _, group in GROUPS:
        for page in group:
            if text in page.title.casefold() and page.is_for(g.account.role):
                yield Hit(page.title, url_for(page.endpoint))
    for title, address in (("Help", "/help/"), ("API", "/docs"), ("Start page", "/")):
        if text in title.casefold():
            yield Hit(title, address)


def _users(connection: Connection, text: str) -> list[Hit]:
    found = services().event_views.visitors_like(connection, text, FOUND, now_us=now_us())
    return [
        Hit(
            one.name,
            url_for("admin_users.show", user_id=one.user_id, session_id=one.session_id),
            "session" if one.user_id is None else "user",
        )
        for one in found
    ]


def _items(connection: Connection, text: str) -> list[Hit]:
    found = catalogue_views.find_items(connection, text, FOUND)
    return [
        Hit(one.title or one.item_id, url_for("admin_items.show", item_id=one.item_id), one.item_id)
        for one in found
    ]


def _scenarios(connection: Connection, text: str) -> list[Hit]:
    return [
        Hit(one.name, url_for("admin_scenarios.show", name=one.name), f"version {one.version}")
        for one in scenario_rows.list_scenarios(connection)
        if text in one.name.casefold()
    ]


def _experiments(connection: Connection, text: str) -> list[Hit]:
    return [
        Hit(one.name, url_for("admin_experiments.show", experiment=one.name), one.state)
        for one in experiment_rows.list_experiments(connection, EXPERIMENTS)
        if text in one.name.casefold()
    ]


def _versions(connection: Connection, text: str) -> list[Hit]:
    rows = version_rows.list_versions(connection, VERSIONS)
    return [
        Hit(row.version, url_for("admin_models.show", version=row.version), row.state)
        for row in rows
        if text in row.version.casefold()
    ]


def _runs(connection: Connection, text: str) -> list[Hit]:
    """The run of a number, or the newest runs of a job."""
    number = text.removeprefix("run ").lstrip("#")
    if number.isascii() and number.isdigit() and len(number) < 19:
        rows = [
            one
            for one in job_rows.list_runs(connection, 1, int(number) + 1)
            if one.id == int(number)
        ]
    else:
        job = next((job for job in (*JOBS, *FILE_JOBS) if job.startswith(text)), None)
        rows = [] if job is None else job_rows.list_runs(connection, FOUND, job=job)
    return [
        Hit(f"Run {row.id}", url_for("admin_jobs.run", run_id=row.id), f"{row.job}, {row.state}")
        for row in rows
    ]
