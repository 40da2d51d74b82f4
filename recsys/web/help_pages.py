"""/help: the documents as a site, from the files that `make docs` has built.

A wheel brings them along. In a checkout where they are not built yet, the page says how to build them.
"""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, render_template, send_from_directory
from flask import current_app as app
from werkzeug.exceptions import NotFound

from recsys.web import front_door
from recsys.web.admin import pages
from recsys.web.parameters import takes
from recsys.web.problem_details import problem

ADDRESS = "/help/"
FOLDER = "help"  # beside the templates
FRONT = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
NOT_BUILT = ("The documents are not built yet", "Build them in the checkout with: make docs")
NO_PAGE = ("Page not found", "The help has no page at this address.")


def register(application: Flask) -> None:
    """Add the help to the application."""
    application.add_url_rule(ADDRESS, "help", help_page)
    application.add_url_rule(f"{ADDRESS}<path:name>", "help", help_page)


@takes("v", "q", "check_keywords", "area", "highlight")  # of the search; `v` is a file's digest
def help_page(name: str = FRONT) -> Response:
    """A file of the site; 304 where the browser has it already."""
    folder = Path(app.root_path) / FOLDER
    try:
        response = send_from_directory(folder, name)
    except NotFound:
        title, detail = NO_PAGE if (folder / FRONT).is_file() else NOT_BUILT
        if not front_door.wants_html():
            return problem(404, f"{title}. {detail}")
        text = render_template("help_missing.html", title=title, detail=detail, asset=pages.address)
        response = Response(text, 404)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response
