"""Ray: ranges of events read by its tasks, and ranks of a training in its tasks.

The only home of ray, which is an extra. Without an address a cluster of this process's own is
started, bound to the loopback address, with a token of its own, and stopped at the end. The training
itself stays in this process, which is rank 0: the cluster's tasks get an address to join it at and need
no shared disk, no database and no configuration.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from recsys.config import TrainingSettings, exchange_on_loopback, guard_ray
from recsys.distributed.torchrun import LOOPBACK, be_rank, listening_at, rank_0
from recsys.errors import MissingExtraError, RecsysError, TrainingError
from recsys.models.lstm.process_group import Place

OBJECT_STORE_BYTES = 256 * 2**20
KNOCK_SECONDS = 5.0  # for a cluster's address to answer
END_SECONDS = 10.0  # for the ranks to end once rank 0 is done
Result = TypeVar("Result")


class RayCluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any, workers: int, host: str) -> None:
        """`host`: the address at which its machines reach this one."""
        self._ray, self._workers, self._host = ray, workers, host

    def with_workers(self, workers: int) -> RayCluster:
        """The same cluster, of which so many workers are used at once."""
        return RayCluster(self._ray, workers, self._host)

    def results(self, work: Sequence[Callable[[], Result]]) -> Iterator[Result]:
        """What each of `work` gives, in order; as many run at once as there are workers.

        They are picklable. A task whose process dies is run again. Raises TrainingError where that does
        not help, or where one fails.
        """
        task = self._ray.remote(num_cpus=1, max_retries=3)(_result)
        waiting = deque(work)
        under_way: deque[Any] = deque()
        while waiting or under_way:
            while waiting and len(under_way) < self._workers:
                under_way.append(task.remote(waiting.popleft()))
            try:
                result, error = self._ray.get(under_way.popleft())
            except self._ray.exceptions.RayError as lost:
                raise TrainingError(
                    "a task of the Ray cluster was lost or failed; nothing was registered"
                ) from lost
            if error is not None:
                raise TrainingError(error)
            yield result

    @contextmanager
    def ranks(self, settings: TrainingSettings) -> Iterator[None]:
        """Be rank 0 of `settings.ranks` ranks, whose others are tasks of the cluster.

        Raises TrainingError where they do not come in time, as where the cluster lacks the resources
        they ask for.
        """
        wanted = {"num_cpus": settings.rank_cpus, "num_gpus": settings.rank_gpus}
        task = self._ray.remote(**wanted, max_retries=0)(_be_rank)
        with listening_at(self._host, 0) as own:
            port, size = own.getsockname()[1], settings.ranks
            places = [Place(self._host, port, rank, size) for rank in range(1, size)]
            under_way = [task.remote(one, settings.join_timeout_seconds) for one in places]

            def look() -> None:
                for ended in self._ray.wait(under_way, timeout=0)[0]:
                    raise TrainingError(self._why(ended))

            try:
                with rank_0(settings, own, look):
                    yield
                self._ray.wait(under_way, num_returns=len(under_way), timeout=END_SECONDS)
            finally:
                for one in under_way:  # those that a busy cluster never began too
                    self._ray.cancel(one, force=True)

    def _why(self, ended: Any) -> str:
        """Why a rank ended before the training began."""
        try:
            error = self._ray.get(ended)[1]
        except self._ray.exceptions.RayError:
            error = None
        return error or "a task of the Ray cluster was lost before its rank had come"


@contextmanager
def connected(address: str, workers: int) -> Iterator[RayCluster]:
    """Ray at `address`, or a cluster of `workers` CPUs started for this alone where it is empty.

    Raises MissingExtraError where Ray is not installed, TrainingError where it does not answer.
    """
    guard_ray(own_cluster=not address)
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "for training.engine = ray") from None
    if not address:
        with exchange_on_loopback(), _session(ray, "local", num_cpus=workers, **OWN_CLUSTER):
            yield RayCluster(ray, workers, LOOPBACK)
        return
    host, _, port = address.rpartition(":")
    try:  # Ray itself would try for minutes
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError):
        raise TrainingError(f"no Ray cluster answers at {address}") from None
    with _session(ray, address):
        node: Any = ray.util
        yield RayCluster(ray, workers, node.get_node_ip_address())


OWN_CLUSTER = {
    "include_dashboard": False,
    "object_store_memory": OBJECT_STORE_BYTES,
    "_node_ip_address": LOOPBACK,
}


@contextmanager
def _session(ray: Any, address: str, **options: Any) -> Iterator[None]:
    try:
        ray.init(address=address, logging_level=logging.ERROR, **options)
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise TrainingError(f"Ray cannot be reached or started ({type(error).__name__})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _result(work: Callable[[], Result]) -> tuple[Result | None, str | None]:
    """What `work` gives, or the line of what it raised on purpose, not its traceback."""
    try:
        return work(), None
    except RecsysError as error:
        return None, str(error)


def _be_rank(place: Place, join_seconds: float) -> tuple[None, str | None]:
    return _result(lambda: be_rank(place, join_seconds))
