"""Run a job in this process: take its row, beat while it runs, and write down how it ended.

A run lives in a child process of its own, at low priority, so that serving keeps its latency; what
it does there is in retrain.py, refresh.py, prune.py, tune.py and backup.py. It dies with the scheduler that
launched it, and what it would publish is refused once another scheduler leads.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from jobs import backup, prune, refresh, retrain, tune, uploaded_files
from jobs.lease import now_us
from jobs.run_log import CancelledRunError, JobOutcome, RunLog
from recsys import tracing
from recsys.config import Settings
from recsys.errors import RecsysError, StorageUnavailableError
from recsys.storage.engine.database import Database, open_database
from recsys.storage.entities import job_rows

log = structlog.get_logger(__name__)

BEAT_SECONDS = 2.0
OUTCOME_SECONDS = 30.0  # for which an outcome waits for a database that is away
STOP_SECONDS = 10.0  # from the end of a job to that of its last heartbeat


Job = Callable[[Settings, Database, RunLog], JobOutcome]
JOBS: dict[str, Job] = {
    "retrain": retrain.run,
    "refresh": refresh.run,
    "prune": prune.run,
    "tune": tune.run,
    "backup": backup.run,
    "check": uploaded_files.check,
    "import": uploaded_files.import_,
    "undo": uploaded_files.undo,
}
assert tuple(JOBS) == (*job_rows.JOBS, *job_rows.FILE_JOBS)


def run_in_this_process(settings: Settings, run_id: int, token: int | None = None) -> bool:
    """Take the requested run and do it here; True where it succeeded. Its row tells the rest."""
    database = open_database(settings)
    with database.connect() as connection:
        run = job_rows.get_run(connection, run_id)
    host = socket.gethostname()
    with database.begin() as connection:
        if not job_rows.start_run(connection, run_id, os.getpid(), host, now_us(), token):
            log.warning("run was taken or cancelled before it began", run_id=run_id)
            return False
    run_log = RunLog(database, run_id, token)
    run_log.say(f"begun by process {os.getpid()} on {host}")
    started, done = time.monotonic(), threading.Event()
    beating = threading.Thread(target=_beat, args=(run_log, done, os.getppid()), daemon=True)
    beating.start()
    state, outcome, error = "succeeded", None, None
    try:
        with tracing.span(f"job {run.job}", run_id=run_id):
            outcome = JOBS[run.job](settings, database, run_log).to_json()
    except CancelledRunError:
        state = "cancelled"
    except RecsysError as reason:
        state, error = "failed", str(reason)
    except MemoryError:
        state, error = "failed", "memory ran out"
    except OSError as reason:
        log.exception("run failed", run_id=run_id, job=run.job)
        state, error = "failed", f"the system refused: {os.strerror(reason.errno or 0)}"
    except Exception as reason:  # a job is wrapped: whatever broke, the run's row must say so
        log.exception("run failed", run_id=run_id, job=run.job)
        state, error = "failed", f"{type(reason).__name__}: see the scheduler's log"
    finally:
        done.set()
        beating.join(timeout=STOP_SECONDS)
    used = _resources(time.monotonic() - started)
    give_up_at = time.monotonic() + OUTCOME_SECONDS
    while True:
        try:
            with database.begin() as connection:
                job_rows.finish_run(connection, run_id, state, now_us(), outcome, error, used)
            return state == "succeeded"
        except StorageUnavailableError as away:
            if time.monotonic() > give_up_at:
                raise
            log.warning("the outcome waits to be stored", run_id=run_id, reason=str(away))
            time.sleep(BEAT_SECONDS)


def _resources(seconds: float) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(used.ru_maxrss / 1024),
    }


def _beat(run_log: RunLog, done: threading.Event, parent: int) -> None:
    while not done.wait(BEAT_SECONDS):
        if os.getppid() != parent:
            log.error("the scheduler is gone, so this run ends", run_id=run_log.run_id)
            os._exit(1)
        try:
            run_log.beat()
        except RecsysError as error:
            log.warning("heartbeat not written", run_id=run_log.run_id, reason=str(error))
        except Exception:
            log.exception("heartbeat not written", run_id=run_log.run_id)
