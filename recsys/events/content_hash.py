"""What makes two events of files the same event: a hash of all that they say."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from recsys.events.frame import EVENT_SCHEMA


def content_hashes(events: pa.Table) -> list[str]:
    """The BLAKE2b-128 of each event's values (EVENT_SCHEMA), as 32 hexadecimal digits.

    Equal events have equal hashes, from whichever file format they were read, and on every machine
    and release: rows on disk rely on it. `position` plays no part. The values are joined with a
    character that none of them may hold; a float is given by its bits, so that no way of printing
    it matters.
    """
    texts = []
    for name in EVENT_SCHEMA.names:
        column = events[name]
        if name == "value":
            column = pc.add(column, 0.0).combine_chunks().view(pa.int64())  # -0.0 becomes 0.0
        texts.append(pc.fill_null(pc.cast(column, pa.string()), ""))
    joined = pc.binary_join_element_wise(*texts, "\x1f")
    blake2b = hashlib.blake2b
    return [
        blake2b(row, digest_size=16).hexdigest() for row in pc.cast(joined, pa.binary()).to_pylist()
    ]
