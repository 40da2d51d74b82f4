"""What stands for an item in a list: a picture of its own, or a tile in the hue of its category."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

from recsys.config import NETWORKS
from recsys.models.blend import BLEND, COPY, TRENDING
from recsys.storage.entities.item_rows import StoredItem

HUES = 8  # classes hue-0.. of people.css
TRACE = 0.005  # a share too small to be named
SOURCE_MEANINGS = {  # of sources that no ranker's name explains
    **dict.fromkeys((*NETWORKS, BLEND), "what the network expects after this history"),
    COPY: "an item of this history, seen before, which the network copies",
    TRENDING: "trending now: what most users and sessions had in the last hour",
    "latest": "what was added to the catalogue last",
}
MAX_INLINE = 8_192  # characters of a picture that stands in its address


def hue(item: StoredItem | None) -> int:
    """The hue of an item's last, narrowest category: the same wherever it is shown."""
    name = item.categories[-1] if item and item.categories else ""
    return zlib.crc32(name.encode()) % HUES


def initials(item_id: str, item: StoredItem | None) -> str:
    """At most two letters of the title, else of the id.

    >>> initials("sku-1", None), initials("", None)
    ('sk', '')
    """
    words = (item.title if item and item.title else item_id).split()
    return "".join(word[0] for word in words[:2]) if len(words) > 1 else "".join(words)[:2]


def picture(item: StoredItem | None) -> str | None:
    """The address of an item's picture where no other host is asked for it, else None.

    >>> from dataclasses import replace
    >>> item = StoredItem("i", None, [], None, "/pictures/i.png", True, {}, 1, 1)
    >>> picture(item), picture(replace(item, image="//elsewhere.example/i.png"))
    ('/pictures/i.png', None)
    """
    image = item.image if item else None
    if not image or len(image) > MAX_INLINE:
        return None
    here = image.startswith("/") and not image.startswith(("//", "/\\"))
    return image if here or image.startswith("data:image/") else None


def strongest(reasons: Iterable[Any] | None) -> list[tuple[str, float]]:
    """(item id, share) of what is behind an item: events of one item added up, traces left out.

    `reasons`: as an answer holds them, or as they were stored.

    >>> strongest([{"item_id": "a", "share": 0.2}, {"item_id": "a", "share": 0.1},
    ...            {"item_id": "b", "share": 0.001}])
    [('a', 0.3)]
    """
    shares: dict[str, float] = {}
    for one in reasons or ():
        item_id, share = (
            (one["item_id"], one["share"]) if isinstance(one, dict) else (one.item_id, one.share)
        )
        shares[item_id] = round(shares.get(item_id, 0.0) + share, 4)
    found = [(item_id, min(share, 1.0)) for item_id, share in shares.items() if share >= TRACE]
    return sorted(found, key=lambda pair: -pair[1])


def source_kind(source: str) -> str:
    """Whether the model gave an item, a ranker that counts, or what needs no history.

    >>> source_kind("gru"), source_kind("session_knn"), source_kind("latest")
    ('model', 'ranker', 'own')
    """
    if source in (*NETWORKS, BLEND, COPY):
        return "model"
    return "own" if source in ("popular", "latest", TRENDING) else "ranker"


def source_meaning(source: str) -> str:
    """What a source is, where its name does not say so; else nothing."""
    return SOURCE_MEANINGS.get(source, "")


FILTERS: dict[str, Callable[..., Any]] = {
    "hue": hue,
    "picture": picture,
    "strongest": strongest,
    "source_kind": source_kind,
    "source_meaning": source_meaning,
}
