"""The dashboard under /admin: server-rendered pages behind a session."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, Response, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from recsys import __version__
from recsys.web import problem_details
from recsys.web.admin import access, formats, login_page, pages, svg
from recsys.web.admin.access import PREFIX, view
from recsys.web.admin.terms import TERMS
from recsys.web.services import services

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

blueprint = Blueprint("admin", __name__, url_prefix=PREFIX)


@view(blueprint, "/", role="viewer")
def home() -> AnyResponse:
    """The first page."""
    return redirect(url_for("admin_overview.index"))


def register(app: Flask) -> None:
    """Add the dashboard to `app`."""
    for part in (blueprint, login_page.blueprint, *pages.blueprints()):
        app.register_blueprint(part)
    app.add_template_filter(svg.chart_json, "chart_json")
    for name, function in formats.FILTERS.items():
        app.add_template_filter(function, name)
    app.add_template_filter(_money, "money")

    @app.before_request
    def check() -> AnyResponse | None:
        if not _is_here():
            return None
        g.problem_page = problem_page
        return access.check_request()

    @app.after_request
    def protect(response: Response) -> Response:
        if _is_here():
            response.headers["Content-Security-Policy"] = POLICY
            response.headers["Referrer-Policy"] = "same-origin"
            response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        elif request.path.startswith("/static/admin/") and request.args.get("v"):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    @app.context_processor
    def layout() -> dict[str, Any]:
        """What every page of the dashboard may use."""
        if not _is_here():
            return {}
        return {
            "asset": pages.address,
            "csrf_token": access.csrf_token,
            "account": g.get("account"),
            "may": access.may,
            "navigation": _navigation,
            "has_view": app.view_functions.__contains__,
            "take_flash": access.take_flash,
            "terms": TERMS,
            "release": __version__,
        }

    def _navigation() -> list[tuple[str, list[pages.Page]]]:
        """The entries for the account at hand, by group."""
        role = g.account.role if g.get("account") else "viewer"
        known = app.view_functions
        shown = [
            (title, [page for page in group if page.endpoint in known and page.is_for(role)])
            for title, group in pages.GROUPS
        ]
        return [(title, group) for title, group in shown if group]


def problem_page(status: int, title: str, detail: str) -> Response | None:
    """An error as a page; None where a script asked, which is told as the API tells it."""
    if request.headers.get("HX-Request") or request.accept_mimetypes.best == "application/json":
        return None
    try:
        way = g.get("way_on") or _way_on()
        page = render_template(
            "admin/problem.html", status=status, title=title, detail=detail, way=way
        )
    except Exception:  # the database is away: the layout cannot be had either
        problem_details.log.warning("the error page could not be made", status=status)
        return None
    return Response(page, status, mimetype="text/html")


def _way_on() -> tuple[str, str] | None:
    """The page that the address belongs to: its title and address."""
    if not g.get("account"):
        return None
    for _, group in pages.GROUPS:
        for page in group:
            named = request.path.startswith(f"{PREFIX}/{page.name.replace('_', '-')}")
            if (request.blueprint in page.blueprints or named) and page.is_for(g.account.role):
                return page.title, url_for(page.endpoint)
    return None


def _is_here() -> bool:
    return request.path == PREFIX or request.path.startswith(PREFIX + "/")


def _money(value: float | None) -> str:
    """An amount in the configured currency."""
    return formats.money(value, services().settings.attribution.currency)
