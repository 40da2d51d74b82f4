"""The attacks of `recsys bench faults --only attacks`, on real processes."""

import pytest

from bench.drills import fault_attacks


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_attacks_with_a_pages_key_hold(database_url, stage_at):
    found = fault_attacks.attacks(stage_at(database_url))
    assert len(found) == 4
    assert all(one.held for one in found), found
