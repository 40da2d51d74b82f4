"""The top k of a whole user base, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from recsys.config.exclude_seen import seen_types
from recsys.events.frame import EventFrame
from recsys.events.sequences import build_sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.bundle import Bundle
from recsys.models.ranking import scores, top_k

BATCH = 256  # users ranked together


def rank_everyone(
    bundle: Bundle, frame: EventFrame, hidden: set[str], exclude_seen: str, k: int
) -> Iterator[pa.RecordBatch]:
    """Batches (user_id, item_id, rank, score) for every known user of `frame`, best item first.

    Users none of whose items the model knows get no rows here; a request of theirs is answered with
    popular items.
    """
    inputs = set(bundle.input_event_types)
    everything = build_sequences(frame, bundle.session_gap_seconds)
    codes = bundle.vocabulary.encode(frame.item_ids)
    names = np.array([not inputs or name in inputs for name in frame.type_names], np.bool_)
    left_out = seen_types(exclude_seen)
    is_seen = np.array(
        [left_out is None or name in left_out for name in frame.type_names], np.bool_
    )
    types = {name: code for code, name in enumerate(bundle.event_types, 1)}
    table = np.array([types.get(name, 0) for name in frame.type_names], np.int16)
    encoded = everything.recode(codes)
    read = encoded.keep(names[encoded.event_types]) if len(names) else encoded
    out = bundle.vocabulary.encode(hidden)
    out = out[out >= FIRST_ITEM]
    place = {key: number for number, key in enumerate(encoded.keys)}
    chosen = np.array([n for n, key in enumerate(read.keys) if key.startswith("u:")], np.int64)
    for at in range(0, len(chosen), BATCH):
        numbers = chosen[at : at + BATCH]
        histories = read.slices(read.offsets[numbers], read.offsets[numbers + 1]).with_types(table)
        found = scores(bundle, histories.last(bundle.max_length))
        found[:, out] = -np.inf
        users, items, ranks, values = [], [], [], []
        for row, number in enumerate(numbers):
            if not (histories[row] >= FIRST_ITEM).any():
                continue
            own = place[read.keys[number]]
            events = slice(encoded.offsets[own], encoded.offsets[own + 1])
            seen = encoded.items[events][is_seen[encoded.event_types[events]]]
            found[row, seen] = -np.inf
            for rank, index in enumerate(top_k(found[row], k), 1):
                users.append(read.keys[number][2:])
                items.append(bundle.vocabulary.item_id(int(index)))
                ranks.append(rank)
                values.append(float(found[row, index]))
        if users:
            yield pa.record_batch(
                {
                    "user_id": pa.array(users, pa.string()),
                    "item_id": pa.array(items, pa.string()),
                    "rank": pa.array(ranks, pa.int32()),
                    "score": pa.array(values, pa.float32()),
                }
            )
