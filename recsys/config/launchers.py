"""What launchers of processes say and are told by environment variables: torchrun and Ray."""

from __future__ import annotations

import os
import secrets


def started_by_torchrun() -> bool:
    """Whether this process is one of several ranks that a launcher started."""
    named = {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    return named and int(os.environ.get("WORLD_SIZE", "1")) > 1


def guard_ray(own_cluster: bool) -> None:
    """How Ray is run; to be called before ray loads.

    Whoever may talk to a cluster may run code on it, so it asks for a token: of a cluster of this
    process's own one made for it alone, else the one the cluster's owner gave. Nothing is reported
    to anybody.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    if own_cluster:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Its name tells of other systems; what it does here is to bind to the loopback address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_COLOR_PREFIX"] = "0"
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
