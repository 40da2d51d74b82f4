"""The documents as a site: `make docs` builds it to recsys/web/help, and the service serves it at /help.

Nothing in it is loaded from another host, and no page has a script or a style of its own in the markup,
so that the service's Content-Security-Policy holds for it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

from recsys import __version__

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tools"))

project = "recsys"
release = version = __version__
copyright = "recsys contributors, Apache-2.0"
extensions = ["myst_parser", "reference_pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_static", "_templates"]
templates_path = ["_templates"]
nitpicky = True
suppress_warnings = ["myst.header"]  # the changelog's entries are as small as they are on purpose

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = "recsys"
html_favicon = "../recsys/web/static/admin/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_sidebars = {
    "**": [
        *("sidebar/brand.html", "sidebar/search.html", "sidebar/scroll-start.html"),
        *("sidebar/navigation.html", "service-links.html", "sidebar/scroll-end.html"),
    ]
}
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b57d0", "color-brand-content": "#0b57d0"},
    "dark_css_variables": {"color-brand-primary": "#8ab4f8", "color-brand-content": "#8ab4f8"},
}
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"

# Documents outside docs/, and the pages that include them.
INCLUDED = {
    "../clients/js/README.md": "client-javascript.md",
    "../clients/python/README.md": "client-python.md",
    "../CHANGELOG.md": "changelog.md",
    "../../README.md": "index.md",
    "../../docs/": "",
}
OTHER_PAGES = "<!-- pages of docs/ that no list above or below names -->"
# As attributes and classes: the policy forbids styles in the markup. A heading says its
# level, and a landmark its name.
REPLACED = {
    ' style="display: none;"': ' class="sprites"',
    ' style="opacity: 50%"': ' opacity="0.5"',
    ' role="heading">': ' role="heading" aria-level="2">',
    '<aside class="sidebar-drawer': '<aside aria-label="Pages" class="sidebar-drawer',
    '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer',
}
INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.S)


def complete_lists(app: Sphinx, name: str, source: list[str]) -> None:
    """List under How-to guides the pages that the front page does not name, and all decisions."""
    if name == "index":
        named = set(re.findall(r"^([\w/-]+)$", source[0], re.M))
        others = [one for one in sorted(app.env.found_docs) if one not in named | {"index"}]
        source[0] = source[0].replace(OTHER_PAGES, "\n".join(n for n in others if "/" not in n))
    elif name == "decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n0*\n```\n"
    follow_links(app, "", name, source)


def follow_links(app: Sphinx, path: object, name: str, source: list[str]) -> None:
    """Let links to documents outside docs/ lead to their pages."""
    for outside, page in INCLUDED.items():
        source[0] = source[0].replace(f"]({outside}", f"]({page}")


def move_inline_code(app: Sphinx, error: Exception | None) -> None:
    """Move the theme's inline scripts and styles to files: no policy has to make an exception for them."""
    if error is not None:
        return
    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text()
        up = "../" * (len(path.relative_to(app.outdir).parts) - 1)

        def to_file(found: re.Match[str], up: str = up) -> str:
            kind, code = found.groups()
            digest = hashlib.sha256(code.encode()).hexdigest()[:12]
            name = f"_static/inline-{digest}.{'js' if kind == 'script' else 'css'}"
            (Path(app.outdir) / name).write_text(code)
            if kind == "script":
                return f'<script src="{up}{name}"></script>'
            return f'<link rel="stylesheet" href="{up}{name}">'

        for style, instead in REPLACED.items():
            page = page.replace(style, instead)
        path.write_text(INLINE.sub(to_file, page))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", complete_lists)
    app.connect("include-read", follow_links)
    app.connect("build-finished", move_inline_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
