"""Scenarios as rows."""

import pytest

from recsys.errors import NotFoundError
from recsys.serving.answers import Request
from recsys.serving.steering.scenarios import Scenarios
from recsys.steering.scenario_spec import BoostRule, ScenarioSpec
from recsys.storage.entities import scenario_rows
from recsys.storage.entities.stamps import read_stamps


def test_numbers_of_versions_are_never_given_twice(database):
    home, cart = ScenarioSpec(k=5), ScenarioSpec(logic="popular")
    with database.begin() as connection:
        before = read_stamps(connection).scenarios
        assert scenario_rows.add_version(connection, "home", home, "ann", 1).version == 1
        scenario_rows.add_version(connection, "cart", cart, "ann", 2)
        again = scenario_rows.add_version(connection, "home", cart, "bob", 3, "rollback to 1")
        assert again == scenario_rows.get_scenario(connection, "home")
        assert (again.version, again.author, again.note) == (2, "bob", "rollback to 1")
        assert [one.name for one in scenario_rows.list_scenarios(connection)] == ["cart", "home"]
        assert scenario_rows.get_version(connection, "home", 1).spec == home
        assert read_stamps(connection).scenarios == before + 3

        scenario_rows.delete_scenario(connection, "home")
        assert scenario_rows.get_scenario(connection, "home") is None
        with pytest.raises(NotFoundError):
            scenario_rows.delete_scenario(connection, "home")
        with pytest.raises(NotFoundError):
            scenario_rows.get_version(connection, "home", 3)
        assert scenario_rows.add_version(connection, "home", home, "ann", 4).version == 3
        numbers = [one.version for one in scenario_rows.list_versions(connection, "home", 9)]
        assert numbers == [3, 2, 1]


def test_a_process_answers_by_the_newest_version_and_narrows_it(database):
    scenarios = Scenarios(database)

    def applied(request):
        with database.connect() as connection:
            stamps = read_stamps(connection)
        found = scenarios.find(request.scenario, stamps)
        return request if found is None else found.applied(request)

    asked = Request(k=20, scenario="home", left_open=frozenset({"k", "exclude_seen"}))
    assert applied(asked) is asked  # a label alone
    first = ScenarioSpec(
        k=30,
        exclude_seen="cart",
        filter="price<50",
        boosts=(BoostRule("brand=Acme", 2.0),),
        max_per_category=4,
        exclude_items=("gone",),
    )
    with database.begin() as connection:
        scenario_rows.add_version(connection, "home", first, "ann", 1)
    made = applied(asked)
    assert (made.k, made.exclude_seen, made.max_per_category) == (30, "cart", 4)
    assert (made.scenario_version, made.scenario_spec) == (1, first)
    assert [one.column for one in made.scenario_rules.conditions] == ["price"]
    boosts = made.scenario_rules.boosts
    assert [(one.condition.literal, one.factor) for one in boosts] == [("Acme", 2.0)]
    narrowed = Request(
        k=10, scenario="home", exclude_seen="purchase", exclude_items=frozenset({"x"})
    )
    made = applied(narrowed)
    assert (made.k, made.exclude_seen) == (10, "cart,purchase")
    assert made.exclude_items == {"x", "gone"}
    assert applied(Request(k=99, scenario="home")).k == 30  # a request does not widen

    with database.begin() as connection:
        scenario_rows.add_version(connection, "home", ScenarioSpec(), "ann", 2)
    assert applied(asked).scenario_version == 2
    with database.begin() as connection:
        scenario_rows.delete_scenario(connection, "home")
    assert applied(asked) is asked
