"""Runs of jobs as rows."""

import pytest

from recsys.errors import ConflictError, NotFoundError
from recsys.storage.entities import (
    job_rows,
)


def test_a_slot_is_claimed_once_and_a_job_never_waits_twice(database):
    with database.begin() as connection:
        first = job_rows.claim_slot(connection, "retrain", 60, 61)
        assert first is not None
        assert job_rows.claim_slot(connection, "retrain", 60, 62) is None
        with pytest.raises(ConflictError, match=f"run {first}"):
            job_rows.request_run(connection, "retrain", "cli", 63)
        other = job_rows.request_run(connection, "prune", "cli", 63)
        assert job_rows.start_run(connection, other, 1, "here", 64)
        assert not job_rows.start_run(connection, other, 2, "there", 64)
        assert job_rows.beat(connection, other, 65, "events", 0.5) is False
        assert job_rows.cancel_run(connection, other, 66) == "running"
        assert job_rows.beat(connection, other, 67) is True
        assert job_rows.finish_run(connection, other, "cancelled", 68)
        assert not job_rows.finish_run(connection, other, "succeeded", 69)
        assert job_rows.cancel_run(connection, first, 70) == "cancelled"
        with pytest.raises(ConflictError, match="already ended"):
            job_rows.cancel_run(connection, first, 71)
        with pytest.raises(NotFoundError):
            job_rows.get_run(connection, 999)
        job_rows.add_line(connection, other, "x" * 5_000, 1)
        assert len(job_rows.get_lines(connection, other)[0]["message"]) == 1_000
