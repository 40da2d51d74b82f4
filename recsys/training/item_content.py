"""What the catalogue says of items, and the map from it to a version's item vectors.

Legend: V vocabulary rows, D width.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.events.array_types import Float32Array, Int64Array
from recsys.events.large_arrays import count_codes
from recsys.events.sequences import Sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle
from recsys.models.content import NOTHING, Contents, fit_content, read_contents
from recsys.models.lstm.network import NextItemNetwork
from recsys.models.text_encoder import TextEncoder
from recsys.storage.engine.database import Connection
from recsys.storage.entities import item_rows

CATALOGUE_ITEMS = 100_000  # of the catalogue, the newest, that are looked at
PRIOR_EVENTS = (
    25.0  # as many events weighs what the catalogue tells of a known item, if it explains all
)


def newest_contents(connection: Connection, encoder: TextEncoder | None) -> Contents:
    """What the catalogue says of its newest items, newest first."""
    return read_contents(item_rows.newest(connection, CATALOGUE_ITEMS), encoder)


def with_content(bundle: Bundle, contents: Contents, learned: Sequences, seed: int) -> Bundle:
    """`bundle` with the map from content to the vectors of the items in `learned`, which trained it.

    Of items that stood in few events the network's vectors are drawn towards what the map gives them.
    Without a map where the bundle has no network, or the catalogue tells too little of its items.
    """
    if bundle.network is None or not contents:
        return replace(bundle, content=None)
    item_ids = bundle.vocabulary.item_ids
    told = [contents.get(item_id, NOTHING) for item_id in item_ids]
    events = count_codes(learned.items, len(bundle.vocabulary))[FIRST_ITEM:]
    vectors = bundle.network.arrays()["items.weight"][FIRST_ITEM:]
    content = fit_content(told, vectors, events, np.random.default_rng(seed))
    if content is not None and isinstance(bundle.network, NextItemNetwork):
        held = PRIOR_EVENTS * max(0.0, content.explained)
        drawn = _drawn(vectors, content.vectors(told), events, held)
        bundle.network.put_items(FIRST_ITEM, drawn)
    return replace(bundle, content=content)


def _drawn(
    vectors: Float32Array, priors: Float32Array, events: Int64Array, held: float
) -> Float32Array:
    """Vectors (n, D) of items that stood in `events` (n,), each drawn towards its prior (n, D) as if it
    had stood there `held` times. A prior of zeros draws nothing, nor does one of no event.
    """
    drawn = priors.any(axis=1) & (events > 0)
    share = np.where(drawn, held / (events + held), 0.0).astype(np.float32)[:, None]
    return (1 - share) * vectors + share * priors


def content_summary(bundle: Bundle) -> str:
    """What the catalogue tells of the items' vectors, for the training's log."""
    if bundle.content is None:
        return "the catalogue tells too little of its items to give new ones a vector"
    return f"the catalogue explains {bundle.content.explained:.0%} of held-out items' vectors"
