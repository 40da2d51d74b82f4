"""What serves, changed by people, the gate and the guard."""

import pytest

from recsys.commands import deployments
from recsys.errors import ConflictError, LostLeaseError
from recsys.storage.entities import audit_rows, version_rows
from recsys.storage.entities.audit_rows import CLI, GUARD, SCHEDULE

FIRST, SECOND = "20250101-000000-aaaaaa", "20250102-000000-aaaaaa"
TUNED = {"model": {"width": {"value": 64, "configured": 128}}}


def nothing(connection):
    """A fence that lets everything through."""


@pytest.fixture
def register(database, version_row):
    """register(version, **more) adds a row."""

    def add(version, **more):
        with database.begin() as connection:
            version_rows.add_version(connection, version_row(version, **more))

    return add


def lines(database):
    """(action, subject, details, actor, role) of the audit log, oldest first."""
    with database.connect() as connection:
        found = audit_rows.list_audit(connection)
    return [
        (line.action, line.subject, line.details, line.actor, line.role) for line in found[::-1]
    ]


def champion(database):
    with database.connect() as connection:
        found = version_rows.champion_name(connection)
    return found and found[0]


def test_a_promotion_and_a_roll_back_say_what_they_replaced(database, register):
    register(FIRST)
    register(SECOND)
    deployments.promote(database, CLI, FIRST, "the first", 1)
    deployments.promote(database, CLI, SECOND, "better", 2)
    assert deployments.roll_back(database, CLI, "worse", 3) == FIRST
    assert lines(database) == [
        ("model.promote", FIRST, {"reason": "the first", "replaced": None}, "cli", "cli"),
        ("model.promote", SECOND, {"reason": "better", "replaced": FIRST}, "cli", "cli"),
        ("model.rollback", FIRST, {"reason": "worse", "replaced": SECOND}, "cli", "cli"),
    ]
    with pytest.raises(ConflictError):
        deployments.roll_back(database, CLI, "worse", 4)
    assert len(lines(database)) == 3  # what did not happen leaves no line


def test_the_gate_and_the_guard_leave_lines_too(database, register, version_row):
    register(FIRST)
    deployments.promote(database, CLI, FIRST, "the first", 1)
    row = version_row(SECOND, verdict={"reason": "not worse"})
    with database.connect() as connection:
        before = version_rows.champion_name(connection)
    done = deployments.publish(database, SCHEDULE, row, "by the gate", before, 2, nothing)
    assert (done, champion(database)) == ("promoted", SECOND)
    with database.begin() as connection:
        deployments.roll_back_in(connection, GUARD, "few clicks", 3)
    assert lines(database)[1:] == [
        ("model.promote", SECOND, {"reason": "not worse", "replaced": FIRST}, "schedule", "job"),
        ("model.rollback", FIRST, {"reason": "few clicks", "replaced": SECOND}, "guard", "job"),
    ]
    with database.connect() as connection:
        names = [row["deployed_by"] for row in version_rows.list_deployments(connection)]
    assert names == ["guard", "schedule", "cli"]


@pytest.mark.parametrize(
    ("state", "promotion", "done", "action"),
    [
        ("candidate", "never", "kept", None),
        ("refused", "by the gate", "kept", None),
        ("refused", "forced", "promoted", "model.force_promote"),
        ("candidate", "forced", "promoted", "model.promote"),
    ],
)
def test_a_version_is_registered_whatever_becomes_of_it(
    database, version_row, state, promotion, done, action
):
    row = version_row(FIRST, state=state, verdict={"reason": "so"})
    assert deployments.publish(database, CLI, row, promotion, None, 1, nothing) == done
    with database.connect() as connection:
        assert version_rows.get_version(connection, FIRST).state in (state, "promoted")
    reason = "forced; the gate said: so" if state == "refused" else "so"
    found = [(one[0], one[2]["reason"]) for one in lines(database)]
    assert found == ([] if action is None else [(action, reason)])


def test_a_version_that_was_judged_against_another_champion_is_not_promoted(
    database, register, version_row
):
    register(FIRST)
    deployments.promote(database, CLI, FIRST, "meanwhile", 1)
    row = version_row(SECOND, verdict={"reason": "so"})
    done = deployments.publish(database, SCHEDULE, row, "by the gate", None, 2, nothing)
    assert (done, champion(database), len(lines(database))) == ("overtaken", FIRST, 1)


def test_a_fence_refuses_the_version_and_its_line(database, version_row):
    def fence(connection):
        raise LostLeaseError("another leads")

    row = version_row(FIRST, verdict={"reason": "so"})
    with pytest.raises(LostLeaseError):
        deployments.publish(database, SCHEDULE, row, "by the gate", None, 1, fence)
    with database.connect() as connection:
        assert version_rows.list_versions(connection) == []
    assert lines(database) == []


def test_tuned_settings_that_come_or_go_with_a_champion_leave_a_line(database, register):
    register(FIRST)
    register(SECOND, facts={"metrics": {}, "adopted": TUNED})
    deployments.promote(database, CLI, FIRST, "the first", 1)
    deployments.promote(database, CLI, SECOND, "tuned", 2)
    deployments.promote(database, CLI, SECOND, "again", 3)
    deployments.roll_back(database, CLI, "worse", 4)
    adopted = [one[1:3] for one in lines(database) if one[0] == "settings.adopt"]
    assert adopted == [(SECOND, {"model.width": 64}), (FIRST, {})]
