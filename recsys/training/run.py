"""What a run carries with it: who asked for it, when, and where it reports to."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.progress import OnStage, Say, quiet
from recsys.storage.engine.database import Connection
from recsys.storage.entities.audit_rows import CLI, Actor

if TYPE_CHECKING:  # whoever starts a run or reads its memory loads no network
    from recsys.models.lstm.checkpoint import Progress


@dataclass(frozen=True)
class Run:
    """One training, comparison or search, as whoever started it wants it done.

    `on_progress` may raise to end the run, which is how a job is cancelled. `fence` is called in the
    transaction that publishes and may raise to refuse it, for a job whose scheduler leads no more.
    """

    now: datetime
    actor: Actor = CLI  # who asked for it
    run_id: int | None = None  # of the job's row; None = not a job
    say: Say = quiet  # a line for people
    on_progress: Callable[[Progress], None] = quiet
    on_stage: OnStage = quiet  # each of progress.STAGES as it begins; may raise, too
    fence: Callable[[Connection], None] = quiet


def peak_mib() -> float:
    """The largest resident size of this process so far, in MiB."""
    # ru_maxrss would be a parent's, where it was larger than this process ever was.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)
