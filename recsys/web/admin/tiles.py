"""What stands for an item in a list: a picture of its own, or a tile in the hue of its category."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from recsys.config import NETWORKS
from recsys.models.blend import BLEND, COPY, TRENDING, TRENDING_DAY, TRENDING_US
from recsys.serving.explain import main_reasons
from recsys.storage.entities.item_rows import StoredItem

HUES = 8  # classes hue-0.. of people.css
SOURCE_MEANINGS = {  # of sources that no ranker's name explains
    **dict.fromkeys((*NETWORKS, BLEND), "the network's prediction for this history"),
    COPY: "an item of this history that the network predicts again",
    TRENDING: "trending: the items of most users and sessions in the last hour",
    TRENDING_DAY: "trending: the items of most users and sessions in the last 24 hours",
    "latest": "the latest items of the catalogue",
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


def source_kind(source: str) -> str:
    """Whether the model gave an item, a ranker that counts, or what needs no history.

    >>> source_kind("gru"), source_kind("session_knn"), source_kind("latest")
    ('model', 'ranker', 'own')
    """
    if source in (*NETWORKS, BLEND, COPY):
        return "model"
    return "own" if source in ("popular", "latest", *TRENDING_US) else "ranker"


def source_meaning(source: str) -> str:
    """What a source is, where its name does not say so; else nothing."""
    return SOURCE_MEANINGS.get(source, "")


FILTERS: dict[str, Callable[..., Any]] = {
    "hue": hue,
    "picture": picture,
    "main_reasons": main_reasons,
    "source_kind": source_kind,
    "source_meaning": source_meaning,
}
