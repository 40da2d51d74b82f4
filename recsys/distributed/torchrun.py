"""Ranks of a training that torchrun starts, on this machine or many.

A training that asks for ranks is rank 0 itself and has torchrun start the others here, or waits for
those that torchrun started elsewhere:

    torchrun --nproc-per-node 4 -m recsys train-rank HOST:PORT

Or torchrun starts all of them, rank 0 too, with one command:

    torchrun --nproc-per-node 2 -m recsys train

Rank 0 does what it would do alone, the others take part in its epochs; see
`recsys.models.lstm.process_group`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TypeVar

import structlog

from recsys.config import (
    TrainingSettings,
    exchange_on_loopback,
    launched_rank,
    rank_environment,
)
from recsys.errors import InputError, TrainingError
from recsys.models.lstm.process_group import Place, joined
from recsys.models.lstm.trainer import follow

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
LOOPBACK = "127.0.0.1"
END_SECONDS = 30.0  # for the ranks to end once rank 0 is done
KNOCK_SECONDS = 1.0  # between looks whether rank 0 is there
TOLD_BYTES = 4_000  # of what torchrun wrote, where its ranks did not come


def with_ranks(work: Callable[[], Result], timeout_seconds: float) -> Result | None:
    """What `work` gives at rank 0; None at the others, which help with its trainings.

    For processes that torchrun started, rank 0 too. Raises TrainingError where one of them is lost, or
    silent for `timeout_seconds`.
    """
    with joined(timeout_seconds) as group:
        if group is None or group.rank == 0:
            return work()
        follow(group)
        return None


@contextmanager
def torchrun_ranks(settings: TrainingSettings) -> Iterator[None]:
    """Be rank 0 of `settings.ranks` ranks. Raises TrainingError where the others do not come in time."""
    if settings.engine_address:
        host, _, port = settings.engine_address.rpartition(":")
        with listening_at(host, int(port)) as own, rank_0(settings, own):
            yield
        return
    with (
        exchange_on_loopback(),
        listening_at(LOOPBACK, 0) as own,
        _launched(settings, own) as look,
        rank_0(settings, own, look),
    ):
        yield


@contextmanager
def listening_at(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at which other ranks find this one. Raises TrainingError where it cannot be had."""
    try:
        own = socket.create_server((host, port))
    except OSError as error:
        raise TrainingError(
            f"the training cannot listen at {host}:{port} ({error.strerror or 'no such address'})"
        ) from None
    with own:
        yield own


@contextmanager
def rank_0(
    settings: TrainingSettings, own: socket.socket, look: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Wait at `own` for the other ranks, then lead them; `look` may raise to give up waiting."""
    host, port = own.getsockname()[:2]
    place = Place(host, port, 0, settings.ranks, listening=own)
    with joined(settings.worker_timeout_seconds, place, settings.join_timeout_seconds, look):
        yield


def be_rank(place: Place, join_seconds: float) -> None:
    """Take part in the training whose rank 0 is at `place`, until it ends. Raises TrainingError."""
    with joined(0.0, place, join_seconds) as group:  # rank 0 tells the time-out
        assert group is not None
        follow(group)


def rank_place(address: str, first_device: int) -> Place:
    """The place of this process, which torchrun started beside others to join rank 0 at `address`.

    Raises InputError where that is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InputError("ADDRESS", address, "expected HOST:PORT of a training's first rank")
    number, count, local = launched_rank()
    return Place(host, int(port), number + 1, count + 1, first_device + local)


def wait_for_rank_0(place: Place, seconds: float | None) -> None:
    """Wait until somebody listens at `place`; None: however long it takes. Raises TrainingError."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((place.host, place.port), KNOCK_SECONDS).close()
            return
        except OSError as error:
            if end is not None and time.monotonic() >= end:
                raise TrainingError(f"no training listens at {place.address}") from error
        time.sleep(KNOCK_SECONDS)


@contextmanager
def _launched(settings: TrainingSettings, own: socket.socket) -> Iterator[Callable[[], None]]:
    """torchrun with all ranks but this one; gives what raises TrainingError once it has ended."""
    host, port = own.getsockname()[:2]
    launcher = ["-m", "torch.distributed.run", "--nnodes", "1"]
    # A file in place of a socket that would be open to the network.
    launcher += ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file"]
    launcher += ["--nproc-per-node", str(settings.ranks - 1), "-m", "recsys", "train-rank"]
    # They end with this process: rank 0 is there before they are, and must stay.
    command = [sys.executable, *launcher, f"{host}:{port}", "--wait", "0", "--first-gpu", "1"]
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            env=rank_environment(settings.rank_cpus),
        )

        def look() -> None:
            if process.poll() is not None:
                log.warning("torchrun ended", status=process.returncode, told=_last_words(told))
                raise TrainingError(
                    f"torchrun ended before its ranks had come (status {process.returncode})"
                )

        try:
            yield look
        except BaseException:
            process.terminate()
            raise
        finally:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last_words(told: IO[bytes]) -> str:
    told.seek(max(0, told.seek(0, 2) - TOLD_BYTES))
    return told.read().decode(errors="replace")
