"""Changes that look first and then act, by several at once, on PostgreSQL: one of them wins."""

import subprocess
import sys
from contextlib import closing
from threading import Barrier, Thread

import pytest

from recsys.commands import credentials, deployments, job_control, user_data
from recsys.errors import ConflictError, NotFoundError
from recsys.storage.engine.database import Database
from recsys.storage.entities import (
    account_rows,
    job_rows,
    key_rows,
    schedule_rows,
    user_rows,
    version_rows,
)
from recsys.storage.entities.audit_rows import CLI, SCHEDULE, Actor
from recsys.storage.schema import migrate

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
            account_rows.create_account(connection, f"admin{n}", "a hash", "admin", 1)
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


def begun(change):
    """A thread in which `change` waits, and where what it gives or raises will be."""
    found = []

    def run():
        try:
            found.append(change())
        except ConflictError as error:
            found.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    return thread, found


def test_a_run_that_starts_while_it_is_cancelled_is_not_told_to_have_ended(database):
    run = job_control.run_job(database, CLI, "retrain", 1)
    with database.begin() as connection:
        assert job_rows.start_run(connection, run.id, 1, "here", 2)
        thread, found = begun(lambda: job_control.cancel_run(database, CLI, run.id, 3))
    thread.join(30)
    assert (found[0].state, found[0].cancel_requested) == ("running", True)
    with pytest.raises(ConflictError):  # so that no other begins beside it
        job_control.run_job(database, CLI, "retrain", 4)


def test_a_run_that_ends_while_it_is_cancelled_is_not_cancelled(database):
    run = job_control.run_job(database, CLI, "retrain", 1)
    with database.begin() as connection:
        job_rows.start_run(connection, run.id, 1, "here", 2)
    with database.begin() as connection:
        job_rows.finish_run(connection, run.id, "succeeded", 3)
        thread, found = begun(lambda: job_control.cancel_run(database, CLI, run.id, 4))
    thread.join(30)
    assert refused(found) == 1


def test_a_job_that_is_paused_meanwhile_claims_no_slot(database):
    def claim():
        with database.begin() as connection:
            return job_rows.claim_slot(connection, "retrain", 60, 61)

    with database.begin() as connection:
        schedule_rows.put_schedule(connection, "retrain", "0 3 * * *", 60, 1)
    with database.begin() as connection:
        schedule_rows.set_paused(connection, "retrain", True, 2)
        thread, found = begun(claim)
    thread.join(30)
    assert found == [None]


def test_a_password_that_is_changed_while_it_is_checked_opens_nothing(database):
    visitor = Actor("ada", "-")
    with database.begin() as connection:
        account_rows.create_account(connection, "ada", "a leaked one's hash", "admin", 1)
        checked = account_rows.password_hash(connection, "ada")
    with database.begin() as connection:
        account_rows.set_password(connection, "ada", "another hash")
        thread, found = begun(lambda: credentials.log_in(database, visitor, checked, 2))
    thread.join(30)
    assert refused(found) == 1
    with database.begin() as connection:
        checked = account_rows.password_hash(connection, "ada")
        account_rows.create_account(connection, "bob", "a hash", "admin", 1)
    credentials.set_disabled(database, CLI, "ada", True, 3)
    with pytest.raises(ConflictError):
        credentials.log_in(database, visitor, checked, 4)
    credentials.set_disabled(database, CLI, "ada", False, 5)  # no session waits for that
    with database.connect() as connection:
        assert account_rows.sessions_by_account(connection, 6, 10**12, 10**12) == {}


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_two_first_starts_make_the_tables_and_the_account_once(database_url, empty_url):
    code = (  # Alembic knows one migration a process
        "import sys; from recsys.storage.engine.database import Database; "
        "from recsys.storage.schema import migrate; migrate.upgrade(Database(sys.argv[1]))"
    )
    programs = [subprocess.Popen([sys.executable, "-c", code, empty_url]) for _ in range(2)]
    assert [program.wait(60) for program in programs] == [0, 0]
    with closing(Database(empty_url)) as one, closing(Database(empty_url)) as other:
        assert migrate.current(one) == migrate.head()
        made = at_once(*(lambda on=on: credentials.create_first(on, CLI, 1) for on in (one, other)))
    assert refused(made) == 0
    assert sorted(password is None for _, password in made) == [False, True]


def test_a_key_is_revoked_once(database):
    key_id = key_rows.key_id_of(credentials.create_key(database, CLI, "k", ["read"], (), 1))

    def revoke():
        try:
            return credentials.revoke_key(database, CLI, key_id, 2)
        except NotFoundError:
            return None

    assert sorted(map(str, at_once(revoke, revoke, revoke))) == ["None", "None", "k"]


def test_what_is_promoted_or_gone_back_to_is_not_deleted(database, version_row):
    names = [f"2025010{n}-000000-aaaaaa" for n in range(1, 4)]
    with database.begin() as connection:
        for name in names:
            version_rows.add_version(connection, version_row(name, verdict={"reason": "better"}))
        version_rows.deploy(connection, names[0], 1, "test", "first")
        version_rows.deploy(connection, names[1], 1, "test", "second")

    def delete():
        with database.begin() as connection:
            return version_rows.retire(connection, names[2])

    def promote():
        return deployments.promote(database, CLI, names[2], "better", 2)

    deleted, promoted = at_once(delete, promote)
    assert deleted == (isinstance(promoted, ConflictError))
    with database.connect() as connection:
        champion = version_rows.champion(connection)
    assert champion.state == "promoted"
    assert champion.version == (names[1] if deleted else names[2])
