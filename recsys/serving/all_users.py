"""Every user with events, and their answers as the rows of a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from recsys.errors import StorageUnavailableError
from recsys.events.frame import EventFrame
from recsys.serving.answers import Answer

ANSWERS = 1_000  # written together
ROW_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("rank", pa.int32()),
        pa.field("score", pa.float32()),
    ]
)


def users_of(frame: EventFrame) -> list[str]:
    """Ids of the users that any event of `frame` counts for."""
    keys = (frame.user_keys[number] for number in np.unique(frame.users))
    return [key[2:] for key in keys if key.startswith("u:")]


def answer_rows(answers: Sequence[Answer]) -> pa.RecordBatch:
    """One row for each item of each answer, best first.

    Raises StorageUnavailableError for an answer that lacks stored history.
    """
    for answer in answers:
        if answer.degraded is not None:
            raise StorageUnavailableError(answer.degraded)
    rows = [
        (answer.user_id, item.item_id, item.rank, item.score)
        for answer in answers
        for item in answer.items
    ]
    columns = zip(*rows, strict=True) if rows else ((),) * len(ROW_SCHEMA)
    return pa.record_batch(
        [pa.array(values, field.type) for values, field in zip(columns, ROW_SCHEMA, strict=True)],
        schema=ROW_SCHEMA,
    )
