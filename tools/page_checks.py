"""What is wrong with a page as a browser shows it: layout, dates, focus, words and accessibility.

`watch` a context before its pages are opened; then ask `faults` of a page, at any width and theme.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask
from playwright.sync_api import BrowserContext, Page, TimeoutError, ViewportSize
from werkzeug.exceptions import HTTPException

from tools.glossary import ruled_out

HERE = Path(__file__).parent
SCRIPT = HERE / "page_checks.js"
AXE = HERE.parent / "tests" / "assets" / "axe.min.js"
COLOURS = ["color-contrast", "link-in-text-block"]  # all of axe that a theme can change
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
LINKS = "[...document.querySelectorAll('a[href]:not([download])')].map(a => a.href)"


def watch(context: BrowserContext) -> None:
    """Prepare every page that `context` opens from now on."""
    context.add_init_script(path=SCRIPT)


def faults(page: Page, *, looks: bool = True) -> list[str]:
    """What is clipped, hidden or too wide; with `looks`, other dates, unseen focus and words too."""
    found: list[str] = page.evaluate("pageFaults", {"looks": looks})
    if looks:
        found += [
            f"a word that is ruled out: {one}" for one in ruled_out(page.evaluate("pageText()"))
        ]
    return found


def resize(page: Page, size: ViewportSize) -> None:
    """Another size of the window. Charts are drawn anew a moment later; what stays too wide is a fault."""
    page.set_viewport_size(size)
    with suppress(TimeoutError):
        page.wait_for_function(FITS, timeout=3_000)


def axe_faults(page: Page, *, colours_alone: bool = False) -> list[str]:
    """Whatever axe finds, its best practices included."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE.read_text() + "; undefined")
    options = {"resultTypes": ["violations"], **({"runOnly": COLOURS} if colours_alone else {})}
    problems = page.evaluate("options => axe.run(options).then(found => found.violations)", options)
    return [
        f"axe: {one['id']} {[node['html'][:120] for node in one['nodes'][:3]]}" for one in problems
    ]


class Crawl:
    """Addresses to visit, one for each route that a page links to, from the first pages on."""

    def __init__(self, app: Flask, base: str, first: list[str]) -> None:
        self.base, self.urls = base, app.url_map.bind("localhost")
        self.waiting: list[str] = []
        self.known: set[str] = set()
        self.add(first)

    def add(self, addresses: list[str]) -> None:
        """Note those of `addresses` whose route has not been visited and is shown by GET."""
        for address in addresses:
            parts = urlsplit(address.removeprefix(self.base))
            if parts.scheme or parts.netloc or not parts.path:
                continue
            try:
                endpoint, _ = self.urls.match(parts.path, method="GET")
            except HTTPException:
                continue
            if endpoint not in self.known and endpoint.rpartition(".")[2] != "static":
                self.known.add(endpoint)
                self.waiting.append(f"{parts.path}?{parts.query}" if parts.query else parts.path)

    def visit(self, page: Page) -> Iterator[str]:
        """Show each page in `page`; its address. What answers with no page is passed by."""
        while self.waiting:
            path = self.waiting.pop(0)
            first = page.context.request.get(
                self.base + path, headers={"Accept": "text/html"}, max_redirects=0
            )
            if first.status != 200 or "<html" not in first.text():
                continue
            page.goto(self.base + path)
            page.wait_for_load_state("load")
            yield path
            self.add(page.evaluate(LINKS))
