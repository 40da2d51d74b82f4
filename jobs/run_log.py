"""What a job reports while it runs: the log, stage and progress in its run's row."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from jobs.lease import now_us
from recsys.errors import LostLeaseError, RecsysError, StorageUnavailableError
from recsys.progress import BEGINS, LossPoint
from recsys.storage.engine.database import Connection, Database
from recsys.storage.entities import job_rows, lease_rows
from recsys.storage.entities.audit_rows import SCHEDULE
from recsys.training.run import Run

if TYPE_CHECKING:
    from recsys.models.lstm.checkpoint import Progress

log = structlog.get_logger(__name__)

LOSS_POINTS = 24  # of each part of a fitting, that its run's log tells


class JobOutcome(Protocol):
    """What a job came to, as its run's row keeps it."""

    def to_json(self) -> dict[str, Any]: ...


class CancelledRunError(RecsysError):
    """The run was asked to stop."""


@dataclass
class RunLog:
    """One run's log, stage and progress; the row is written by `beat`, which runs.py calls."""

    database: Database
    run_id: int
    token: int | None = None  # of the leader that launched the run; None = a person did
    cancelled: threading.Event = field(default_factory=threading.Event)
    _stage: str = "starting"
    _progress: float = 0.0

    def say(self, line: str) -> None:
        """Append a line to the run's log; with the database away, to this process's alone."""
        try:
            with self.database.begin() as connection:
                job_rows.add_line(connection, self.run_id, line, now_us())
        except StorageUnavailableError as error:
            log.warning(line, run_id=self.run_id, not_stored=str(error))

    def at(self, stage: str, progress: float) -> None:
        """Set stage and progress (0..1). Raises CancelledRunError where the run should stop."""
        self._stage, self._progress = stage, progress
        if self.cancelled.is_set():
            raise CancelledRunError("cancelled on request")

    def fence(self, connection: Connection) -> None:
        """Refuse a transaction that publishes, by raising LostLeaseError, where another scheduler
        leads or the run was ended by others.
        """
        if self.token is not None:
            lease_rows.check_fence(connection, lease_rows.SCHEDULER, self.token)
        if job_rows.get_run(connection, self.run_id).state != "running":
            raise LostLeaseError("the run was ended meanwhile")

    def training_run(self, now: datetime, first: float = 0.0) -> Run:
        """A training that reports here: its stages, its epochs, and the loss as it falls.

        Its own progress takes this run's from `first` to 1.
        """
        told: dict[str, int] = {}  # part of the fitting -> steps of its loss that were told
        fitting, after = BEGINS["fitting"], BEGINS["evaluating"]

        def at_share(stage: str, share: float) -> None:
            self.at(stage, first + (1.0 - first) * share)

        def on_progress(at: Progress) -> None:
            if at.stage == "final pass":  # at the end of whichever stage it belongs to
                self.at(f"{self._stage.partition(':')[0]}: final pass", self._progress)
            else:
                half = (0.0 if at.stage == "train" else 0.5) + 0.5 * at.done
                epochs = f"fitting: {at.stage}, epoch {at.epoch} of {at.epochs}"
                at_share(epochs, fitting + half * (after - fitting))
            step = int(at.done * LOSS_POINTS)
            if step > told.get(at.stage, 0):
                told[at.stage] = step
                self.say(LossPoint(at.stage, at.done * at.epochs, at.loss).line())

        return Run(
            now,
            SCHEDULE,
            self.run_id,
            self.say,
            on_progress,
            lambda stage: at_share(stage, BEGINS[stage]),
            self.fence,
        )

    def beat(self) -> None:
        """Write heartbeat, stage and progress, and note where the run is to be cancelled."""
        with self.database.begin() as connection:
            if job_rows.beat(connection, self.run_id, now_us(), self._stage, self._progress):
                self.cancelled.set()
