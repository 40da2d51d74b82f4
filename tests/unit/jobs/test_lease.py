"""One leader, told by beats and not by clocks; on both databases."""

import pytest

from jobs.lease import Lease
from recsys.errors import LostLeaseError
from recsys.storage.entities import lease_rows


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def two(database):
    clocks = Clock(), Clock()
    clocks[1].now = 5_000_000.0  # machines do not share a clock
    return [Lease(database, 9.0, clock, lambda: 1) for clock in clocks], clocks


def pass_time(clocks, seconds):
    for clock in clocks:
        clock.now += seconds


def test_the_first_leads_and_the_other_waits(two):
    (one, other), clocks = two
    one.step()
    assert one.leads
    for _ in range(20):
        pass_time(clocks, 2.0)
        one.step()
        other.step()
        assert one.leads
        assert not other.leads
    assert one.token == 1


def test_a_leader_that_is_silent_for_a_life_is_followed(two, database):
    (one, other), clocks = two
    one.step()
    other.step()
    pass_time(clocks, 8.9)
    other.step()
    assert one.leads
    assert not other.leads
    pass_time(clocks, 0.2)
    assert not one.leads  # by itself, before it knows of anyone
    other.step()
    assert other.leads
    assert other.token == 2
    one.step()
    assert one.token is None
    with database.begin() as connection, pytest.raises(LostLeaseError):
        lease_rows.check_fence(connection, lease_rows.SCHEDULER, 1)
    with database.begin() as connection:
        lease_rows.check_fence(connection, lease_rows.SCHEDULER, 2)


def test_a_leader_that_was_away_goes_on_where_nobody_followed(two):
    (one, other), clocks = two
    one.step()
    pass_time(clocks, 100.0)
    assert not one.leads
    one.step()
    assert one.leads
    assert one.token == 1
    other.step()
    assert not other.leads


def test_a_lease_let_go_is_taken_at_once(two):
    (one, other), _ = two
    one.step()
    other.step()
    one.release()
    assert not one.leads
    other.step()
    assert other.leads
    one.release()  # of no effect any more
    other.step()
    assert other.leads


def test_of_two_that_see_it_free_one_has_it(two, database):
    (one, other), _ = two
    with database.connect() as connection:
        free = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
    tokens = []
    for lease in (one, other):
        with database.begin() as connection:
            tokens.append(lease_rows.take_lease(connection, free, lease.holder, 1))
    assert tokens == [1, None]


def test_a_leader_whose_writes_are_refused_stops_leading_and_goes_on(two, database, read_only):
    (one, _), clocks = two
    one.step()
    with read_only(database):
        pass_time(clocks, 10.0)
        one.step()
        assert not one.leads
    one.step()
    assert one.leads


def test_an_unforeseen_error_costs_the_leader_its_turn_alone(two, monkeypatch):
    (one, _), _ = two
    with monkeypatch.context() as patch:
        patch.setattr(lease_rows, "take_lease", lambda *_: {}["gone"])
        one.step()
        assert not one.leads
    one.step()
    assert one.leads
