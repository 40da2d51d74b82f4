"""Pictures of the simulated shop's products, drawn as SVG from kind, style and pattern.

The same words give the same bytes: a picture is its address. The kind gives the silhouette, the style
the materials and colours; style and pattern the side it looks to.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from string import Template
from typing import NamedTuple

from recsys.demo.storefront.drawings import DRAWINGS
from recsys.errors import NotFoundError

OTHER = "parcel"  # what a product of no known kind comes in
SIDE = 200  # units of a picture's edge


class _Palette(NamedTuple):
    ground: str
    body: str
    second: str
    accent: str
    dark: str


PALETTES = {
    "nordic": _Palette("#e6ebee", "#f2eee5", "#cfa97f", "#6d90a6", "#5a4a3c"),
    "rustic": _Palette("#efe5d5", "#9a6a45", "#5f4030", "#d0a35f", "#3f2a1f"),
    "coastal": _Palette("#dceef3", "#5a9dbd", "#f0e2c2", "#f2885d", "#285a72"),
    "urban": _Palette("#e4e5e9", "#565b66", "#a3a9b3", "#e5b53a", "#26292f"),
    "botanical": _Palette("#e3eede", "#6a9a63", "#c1946a", "#e6c35c", "#2c4f35"),
    "classic": _Palette("#f0e8ea", "#87354a", "#c9a657", "#ecd9ae", "#3d1a25"),
    "terracotta": _Palette("#f7e6db", "#cd6f48", "#93482c", "#f3cfa5", "#5f2d1c"),
    "midnight": _Palette("#dfe3f2", "#2f3c72", "#bfa566", "#93a4e6", "#161d3d"),
    "linen": _Palette("#f3eee3", "#d8c9ab", "#a98f69", "#8d9f83", "#6a573d"),
    "copper": _Palette("#f5e7dd", "#c27a55", "#54423a", "#efbf98", "#33261f"),
}
_PLAIN = PALETTES["linen"]

# What the body carries, by the word for it in a title. Each fills tiles of 20 units.
PATTERNS = {
    "plain": "",
    "striped": '<path d="M0 10h20" stroke="{0}" stroke-width="3"/>',
    "dotted": '<circle cx="5" cy="5" r="2.600" fill="{0}"/><circle cx="15" cy="15" r="2.600" fill="{0}"/>',
    "checked": '<path d="M0 5h20M5 0v20" stroke="{0}" stroke-width="1.600"/>',
    "zigzag": '<path d="M0 14l5-6l5 6l5-6l5 6" fill="none" stroke="{0}" stroke-width="2.400"/>',
    "ribbed": '<path d="M10 0v20" stroke="{0}" stroke-width="3"/>',
    "diamond": '<path d="M10 4l5 6l-5 6l-5-6z" fill="{0}"/>',
    "diagonal": '<path d="M0 20L20 0M-5 5L5-5M15 25L25 15" stroke="{0}" stroke-width="2.400"/>',
    "banded": '<path d="M0 4h20M0 8h20" stroke="{0}" stroke-width="1.600"/>',
}

_PICTURE = Template(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200" width="400" height="400">'
    '<defs><radialGradient id="r" cx=".35" cy=".25" r="1"><stop stop-color="$light"/>'
    '<stop offset="1" stop-color="$ground"/></radialGradient>$gradients'
    '<pattern id="p" width="20" height="20" patternUnits="userSpaceOnUse">$pattern</pattern></defs>'
    '<path d="M0 0h200v200H0z" fill="url(#r)"/>'
    '<ellipse cx="102" cy="169" rx="70" ry="8" fill="$dark" fill-opacity=".16"/>'
    '<g transform="$place" stroke-width="4">$behind<path d="$body" fill="url(#b)"/>'
    '<path d="$body" fill="url(#p)" fill-opacity=".55" stroke-opacity=".55"/>$front</g></svg>'
)
_GRADIENT = (
    '<linearGradient id="{0}"><stop stop-color="{1}"/><stop offset=".45" stop-color="{2}"/>'
    '<stop offset="1" stop-color="{3}"/></linearGradient>'
)
_LINE = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'


def slug(text: str) -> str:
    """
    >>> slug("Chef's Knife"), slug("Side Table")
    ('chefs-knife', 'side-table')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("'", "")).strip("-")


def picture_address(kind: str, style: str, pattern: str) -> str:
    """Where the shop serves a product's picture.

    >>> picture_address("Chef's Knife", "Nordic", "dotted")
    '/shop/pictures/chefs-knife/nordic/dotted.svg'
    """
    return f"/shop/pictures/{slug(kind)}/{slug(style)}/{pattern}.svg"


@lru_cache(maxsize=4_096)
def picture(kind: str, style: str, pattern: str) -> bytes:
    """The SVG of a product. Raises NotFoundError for a kind, style or pattern that is not drawn.

    >>> picture("mug", "nordic", "dotted").startswith(b"<svg")
    True
    """
    if kind not in DRAWINGS or style not in PALETTES or pattern not in PATTERNS:
        raise NotFoundError("picture", f"{kind}/{style}/{pattern}")
    drawing, palette = DRAWINGS[kind], PALETTES[style]
    names = {
        **{"b": "url(#b)", "w": "url(#w)", "m": "url(#m)", "l": "url(#l)"},
        **{"a": palette.accent, "k": palette.dark, "g": palette.ground, "s": "#000"},
    }
    whole = Template(f"{drawing.behind}\0{drawing.front}").substitute(names, line=_LINE)
    behind, _, front = whole.partition("\0")
    tones = (("b", palette.body), ("w", palette.second), ("m", "#b9bcc2"), ("l", "#f6f1e6"))
    turned = hashlib.blake2b(f"{style} {pattern}".encode(), digest_size=1).digest()[0] % 2
    mirrored = turned and kind not in _HAVE_A_SIDE
    return _PICTURE.substitute(
        light=_mixed(palette.ground, "#ffffff", 0.6),
        ground=palette.ground,
        dark=palette.dark,
        gradients="".join(
            _GRADIENT.format(
                tone, _mixed(colour, "#ffffff", 0.28), colour, _mixed(colour, "#000000", 0.22)
            )
            for tone, colour in tones
        ),
        pattern=PATTERNS[pattern].format(_mixed(palette.body, palette.second, 0.75)),
        place="translate(200)scale(-1 1)" if mirrored else "translate(0)",
        behind=behind,
        body=drawing.body,
        front=front,
    ).encode()


# A clock's hands and a book's back are on the side they are on.
_HAVE_A_SIDE = {"wall-clock", "notebook", "bookshelf"}


def _mixed(colour: str, other: str, share: float) -> str:
    """
    >>> _mixed("#000000", "#ffffff", 0.5)
    '#808080'
    """
    parts = []
    for at in (1, 3, 5):
        a, b = int(colour[at : at + 2], 16), int(other[at : at + 2], 16)
        parts.append(f"{round(a + (b - a) * share + 1e-9):02x}")
    return "#" + "".join(parts)
