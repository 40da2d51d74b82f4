"""/client.js: the JavaScript client of pages, built from clients/js.

Any page may load it. `/client.js` is kept for an hour, so that pages follow an upgrade; with its digest
(`/client.js?v=…`) it is kept for a year, as it never changes.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flask import Flask, Response, request
from flask import current_app as app

from recsys.web.parameters import takes

ADDRESS = "/client.js"
FILE = "client.js"  # in the folder of static files
HOUR, YEAR = 3_600, 31_536_000


@dataclass(frozen=True)
class Bundle:
    """The built file, as it is and as gzip."""

    plain: bytes
    packed: bytes
    digest: str


@lru_cache(maxsize=1)
def read_bundle(folder: Path) -> Bundle:
    content = (folder / FILE).read_bytes()
    packed = gzip.compress(content, 9, mtime=0)
    return Bundle(content, packed, hashlib.sha256(content).hexdigest()[:16])


def register(application: Flask) -> None:
    """Add the client to the application."""
    application.add_url_rule(ADDRESS, "page_client", page_client)


@takes("v")
def page_client() -> Response:
    """The script, for pages of every origin; 304 where the browser has it already."""
    bundle = read_bundle(Path(app.static_folder or ""))
    packed = request.accept_encodings["gzip"] > 0
    response = Response(
        bundle.packed if packed else bundle.plain, content_type="text/javascript; charset=utf-8"
    )
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    fixed = request.args.get("v") == bundle.digest
    response.headers.update(
        {
            "Vary": "Accept-Encoding",
            "Cache-Control": f"public, max-age={YEAR}, immutable"
            if fixed
            else f"public, max-age={HOUR}",
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
    )
    response.set_etag(f"{bundle.digest}-gzip" if packed else bundle.digest)
    response.make_conditional(request)
    return response
