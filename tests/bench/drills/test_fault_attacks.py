"""The attacks of `recsys bench faults --only attacks`, on real processes."""

import pytest

from bench.drills.fault_attacks import ATTACKS, races
from bench.drills.fault_stage import own_postgres
from bench.drills.prepared_shop import with_two_versions
from bench.installations import install
from bench.releases import HERE


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """An installation of this checkout with a champion and one before it."""
    return with_two_versions(install(HERE, tmp_path_factory.mktemp("attacked") / "prepared"))


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_hold(attack, prepared, tmp_path, held):
    held(attack(prepared.copied(tmp_path / "own")))


@pytest.mark.slow
def test_races_hold_on_postgresql(tmp_path, held):
    with own_postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL is installed")
        held(races(install(HERE, tmp_path / "own", server.url)))
