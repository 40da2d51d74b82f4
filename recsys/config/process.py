"""A process's own set-up: umask, threads, garbage collection, and the environment of torchrun and Ray."""

from __future__ import annotations

import gc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE_UMASK = 0o077  # files 0600, folders 0700


def collect_rarely() -> None:
    """Look for garbage after 50,000 new objects, not 700.

    What is loaded at the start is no garbage: to look through it again and again takes a fifth of the
    time until a command does its work.
    """
    gc.set_threshold(50_000, 20, 20)


def keep_files_private() -> None:
    """Let this user alone read what this process and those it starts write, whoever wrote the code.

    Database files, models, sequence files, exports and settings hold people's clicks, and the umask
    of most machines (022) lets everybody read new files.
    """
    os.umask(PRIVATE_UMASK)


def limit_threads() -> None:
    """One OpenMP thread a server thread; to be called before torch loads.

    torch.set_num_threads does not reach the threads of a server.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def launched_rank() -> tuple[int, int, int]:
    """Rank, number of ranks and rank on this machine, as a launcher such as torchrun has them in the
    environment; (0, 1, 0) without one.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    found = [os.environ.get(name, "") for name in names]
    if not all(one.isdecimal() for one in found[:2]):
        return 0, 1, 0
    return int(found[0]), int(found[1]), int(found[2]) if found[2].isdecimal() else 0


def started_by_torchrun() -> bool:
    """Whether this process is one of several ranks that a launcher started."""
    named = {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    return named and launched_rank()[1] > 1


@contextmanager
def exchange_on_loopback() -> Iterator[None]:
    """Have torch.distributed, here and in processes started meanwhile, use the loopback interface.

    Without it the interface is that of the machine's name, which others reach.
    """
    name = "GLOO_SOCKET_IFNAME"
    if name in os.environ or not Path("/sys/class/net/lo").exists():
        yield
        return
    os.environ[name] = "lo"
    try:
        yield
    finally:
        os.environ.pop(name, None)


def rank_environment(threads: int) -> dict[str, str]:
    """The environment of a rank that this process starts, which computes with so many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def guard_ray(own_cluster: bool) -> None:
    """Set the environment Ray runs in: a token, the loopback address, no reports to anybody.

    To be called before ray loads. Whoever may talk to a cluster may run code on it, so it asks for
    a token: of a cluster of this process's own one made for it alone, else the one the cluster's
    owner gave.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    if own_cluster:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Its name tells of other systems; what it does here is to bind to the loopback address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_COLOR_PREFIX"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
