"""Ray: ranges of events read by its tasks, and ranks of a training in Ray Train's workers.

The only home of ray, which is an extra. Without an address a cluster of this process's own is
started, bound to the loopback address, with a token of its own, and stopped at the end. Nothing here
asks for a shared disk but Ray Train's own folder, which it wants where a cluster has several machines.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.config import guard_ray
from recsys.distributed.torchrun import with_ranks
from recsys.errors import MissingExtraError, RecsysError, TrainingError
from recsys.sequence_store.segment_building import Range, SegmentRows, range_rows

OBJECT_STORE_BYTES = 256 * 2**20
Work = Callable[[], Any]


class RayCluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any, workers: int) -> None:
        self._ray, self._workers = ray, workers

    def with_workers(self, workers: int) -> RayCluster:
        """The same cluster, of which so many workers are used at once."""
        return RayCluster(self._ray, workers)

    def rows(self, url: str, ranges: Sequence[Range]) -> Iterator[SegmentRows | None]:
        """The rows of each of `ranges`, in order; as many are read at once as there are workers.

        A task whose process dies is run again. Raises TrainingError where that does not help.
        """
        task = self._ray.remote(num_cpus=1, max_retries=3)(_rows)
        waiting = deque(ranges)
        under_way: deque[Any] = deque()
        while waiting or under_way:
            while waiting and len(under_way) < self._workers:
                under_way.append(task.remote(url, waiting.popleft()))
            try:
                yield self._ray.get(under_way.popleft())
            except self._ray.exceptions.RayTaskError as error:
                cause = error.as_instanceof_cause()
                raise cause if isinstance(cause, RecsysError) else _failed("a task") from None
            except self._ray.exceptions.RayError:
                raise _failed("a task") from None

    def train(self, work: Work, timeout_seconds: float, storage: Path) -> Any:
        """What `work` gives at rank 0 of a Ray Train worker group, whose other ranks help it.

        `work` is a picklable function that gives plain values; `storage` is a folder for Ray Train.
        Raises TrainingError where it fails or a worker is lost.
        """
        from ray.train import FailureConfig, LoggingConfig, ScalingConfig
        from ray.train import RunConfig as RunOptions
        from ray.train.torch import TorchConfig, TorchTrainer

        name = f"training-{os.getpid()}"
        # Its own types know of no result, and not of all options.
        rank: Any = _rank
        run_config: Any = RunOptions
        trainer = TorchTrainer(
            rank,
            train_loop_config={"work": work, "timeout": timeout_seconds, "folder": str(Path.cwd())},
            torch_config=TorchConfig(backend="gloo", timeout_s=int(timeout_seconds)),
            scaling_config=ScalingConfig(
                num_workers=self._workers, resources_per_worker={"CPU": 1}
            ),
            run_config=run_config(
                name=name,
                storage_path=str(storage.absolute()),
                failure_config=FailureConfig(max_failures=0),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            result: Any = trainer.fit()
        except Exception as error:  # Ray Train wraps what its workers raise in kinds of its own
            raise _failed("a worker") from error
        finally:
            shutil.rmtree(storage / name, ignore_errors=True)
        found = result.return_value
        if "error" in found:
            raise TrainingError(found["error"])
        return found["result"]


@contextmanager
def connected(address: str, workers: int) -> Iterator[RayCluster]:
    """Ray at `address`, or a cluster of `workers` CPUs started for this alone where it is empty.

    Raises MissingExtraError where Ray is not installed, TrainingError where it does not answer.
    """
    guard_ray(own_cluster=not address)
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "to train with --engine ray") from None
    own: dict[str, Any] = {
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
    }
    try:
        ray.init(
            address=address or "local", logging_level=logging.ERROR, **({} if address else own)
        )
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise TrainingError(f"Ray cannot be reached or started ({type(error).__name__})") from error
    try:
        yield RayCluster(ray, workers)
    finally:
        ray.shutdown()


def _rows(url: str, span: Range) -> SegmentRows | None:
    return range_rows(url, span)


def _rank(given: dict[str, Any]) -> dict[str, Any]:
    """One rank: what is raised on purpose comes back as its line, not as a traceback."""
    if Path(given["folder"]).is_dir():
        os.chdir(given["folder"])
    try:
        return {"result": with_ranks(given["work"], given["timeout"])}
    except RecsysError as error:
        return {"error": str(error)}


def _failed(what: str) -> TrainingError:
    return TrainingError(f"{what} of the Ray cluster was lost or failed; nothing was registered")
