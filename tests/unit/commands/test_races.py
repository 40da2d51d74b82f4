"""Changes that look first and then act, by several at once, on PostgreSQL: one of them wins."""

from threading import Barrier, Thread

import pytest

from recsys.commands import credentials, deployments, job_control, user_data
from recsys.errors import ConflictError
from recsys.storage.entities import account_rows, job_rows, user_rows, version_rows
from recsys.storage.entities.audit_rows import CLI, SCHEDULE

ROUNDS = 5
pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def at_once(*changes):
    """What each of `changes` gave or raised (ConflictError), all begun at the same moment."""
    barrier, found = Barrier(len(changes)), [None] * len(changes)

    def run(at):
        barrier.wait(30)
        try:
            found[at] = changes[at]()
        except ConflictError as error:
            found[at] = error

    threads = [Thread(target=run, args=(at,)) for at in range(len(changes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


def refused(found):
    return sum(isinstance(one, ConflictError) for one in found)


def test_users_are_not_merged_in_a_circle(database):
    for n in range(ROUNDS):
        pairs = [(f"a{n}", f"b{n}"), (f"b{n}", f"c{n}"), (f"c{n}", f"a{n}")]
        found = at_once(
            *(
                lambda into=into, other=other: user_data.merge(database, CLI, into, f"u:{other}", 1)
                for into, other in pairs
            )
        )
        assert refused(found) == 1, found
        with database.connect() as connection:  # one of the three is left, and holds the others
            merged = {
                user: set(user_rows.user_summary(connection, user).merged)
                for user in (f"a{n}", f"b{n}", f"c{n}")
            }
        assert sorted(len(others) for others in merged.values()) == [0, 0, 2]


def test_two_admins_do_not_shut_each_other_out(database):
    with database.begin() as connection:
        for n in range(2):
            account_rows.create_account(connection, f"admin{n}", "a long password", "admin", 1)
    for _ in range(ROUNDS):
        found = at_once(
            lambda: credentials.set_role(database, CLI, "admin0", "viewer", 1),
            lambda: credentials.set_disabled(database, CLI, "admin1", True, 1),
        )
        assert refused(found) == 1, found
        credentials.set_role(database, CLI, "admin0", "admin", 1)
        credentials.set_disabled(database, CLI, "admin1", False, 1)


def test_a_job_waits_once(database):
    for _ in range(ROUNDS):
        found = at_once(
            *(lambda: job_control.run_job(database, CLI, "retrain", 1) for _ in range(4))
        )
        assert refused(found) == 3, found
        with database.connect() as connection:
            waiting = job_rows.list_runs(connection, state="requested")
        assert len(waiting) == 1
        job_control.cancel_run(database, CLI, waiting[0].id, 2)


def test_no_more_log_ins_are_tried_than_the_limit(database):
    def attempt():
        with database.begin() as connection:
            return account_rows.begin_attempt(connection, "ada", "10.0.0.1", 1)

    found = at_once(*([attempt] * (account_rows.ACCOUNT_FAILURES + 4)))
    assert found.count(0) == account_rows.ACCOUNT_FAILURES, found


def test_a_name_that_a_form_sends_twice_makes_one_key(database):
    def create():
        return credentials.create_key(database, CLI, "shop", ["read"], (), 1, new_name=True)

    assert refused(at_once(create, create, create)) == 2


def test_one_of_two_trainings_is_promoted(database, version_row):
    verdict = {"reason": "better"}
    for n in range(ROUNDS):
        with database.connect() as connection:
            before = version_rows.champion_name(connection)
        rows = [version_row(f"2025010{n + 1}-00000{at}-aaaaaa", verdict=verdict) for at in (1, 2)]
        found = at_once(
            *(
                lambda row=row, before=before: deployments.publish(
                    database, SCHEDULE, row, "by the gate", before, 1, lambda connection: None
                )
                for row in rows
            )
        )
        assert sorted(found) == ["overtaken", "promoted"]
