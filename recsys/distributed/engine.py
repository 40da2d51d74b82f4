"""Where trainings run: `[training] engine`, for scheduled ones, tuning and commands alike.

Whoever trains stays the one process that reads the database, decides, logs, is cancelled and publishes: it
is rank 0 of all engines. An engine only brings other ranks to share its batches and, where it is a
cluster, tasks that read events.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from recsys.config import Settings, TrainingSettings
from recsys.distributed.ray_cluster import RayCluster, connected
from recsys.distributed.torchrun import torchrun_ranks
from recsys.models.lstm.process_group import present_group
from recsys.progress import Say
from recsys.sequence_store.store import ReadRanges


class Engine:
    """The engine of one training."""

    def __init__(
        self, settings: TrainingSettings, cluster: RayCluster | None, stack: ExitStack
    ) -> None:
        self._settings, self._cluster, self._stack = settings, cluster, stack

    @property
    def read_ranges(self) -> ReadRanges | None:
        """What reads ranges of events in place of this machine; None: nothing does."""
        return self._cluster.results if self._cluster is not None else None

    def gather_ranks(self, say: Say) -> None:
        """Have the other ranks take part in all trainings of this process from here on.

        To be called once events are read, which other tasks of a cluster may do first. Raises
        TrainingError where the ranks do not come within `training.join_timeout_seconds`.
        """
        chosen = self._settings
        if chosen.ranks < 2 or chosen.engine == "local" or present_group() is not None:
            return
        ranks: AbstractContextManager[None] = (
            torchrun_ranks(chosen) if self._cluster is None else self._cluster.ranks(chosen)
        )
        self._stack.enter_context(ranks)
        say(f"{chosen.ranks} ranks ({chosen.engine}) share every batch")


@contextmanager
def opened_engine(settings: Settings) -> Iterator[Engine]:
    """The engine that the settings choose; the ranks it brought are let go at the end.

    Raises MissingExtraError, or TrainingError where a cluster does not answer.
    """
    chosen = settings.training
    with ExitStack() as stack:
        cluster = None
        if chosen.engine == "ray" and present_group() is None:
            workers = max(chosen.processes, (chosen.ranks - 1) * chosen.rank_cpus)
            opened = connected(chosen.engine_address, workers)
            cluster = stack.enter_context(opened).with_workers(chosen.processes)
        yield Engine(chosen, cluster, stack)
