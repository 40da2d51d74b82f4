"""Training in the processes that `torchrun` started, on one machine or many.

    torchrun --nproc-per-node 2 -m recsys train
    torchrun --nnodes 3 --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m recsys train

Every process runs the same command. Rank 0 does what it would do alone, the others take part in its
epochs; see `recsys.models.lstm.process_group`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from recsys.models.lstm.process_group import joined
from recsys.models.lstm.trainer import follow

Result = TypeVar("Result")


def with_ranks(work: Callable[[], Result], timeout_seconds: float) -> Result | None:
    """What `work` gives at rank 0; None at the others, which help with its trainings.

    Raises TrainingError where one of them is lost, or silent for `timeout_seconds`.
    """
    with joined(timeout_seconds) as group:
        if group is None or group.rank == 0:
            return work()
        follow(group)
        return None
