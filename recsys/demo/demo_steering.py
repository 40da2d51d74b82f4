"""What the demo's shop has decided: scenarios of two places, and an experiment between versions of one."""

from __future__ import annotations

from dataclasses import replace

from recsys.commands import experiments, scenarios
from recsys.demo.visitors import HOME, PRODUCT, K
from recsys.steering.experiment_spec import Arm, ExperimentSpec
from recsys.steering.scenario_spec import Explore, ScenarioSpec
from recsys.storage.engine.database import Database
from recsys.storage.entities import experiment_rows, scenario_rows
from recsys.storage.entities.audit_rows import CLI

START_PAGE = ScenarioSpec(k=K, explore=Explore(0.1))
PRODUCT_PAGE = ScenarioSpec(logic="next", k=K, max_per_category=3)
NAME = "variety"
NOTE = "Is a start page with less of the same clicked more often?"


def steer(database: Database, now_us: int) -> None:
    """Store the scenarios and start the experiment; what an earlier run of the demo stored stays as it is.

    The start page has a more varied version, which was taken back: one arm of the experiment is that.
    """
    with database.connect() as connection:
        versions = {
            name: scenario_rows.list_versions(connection, name, 1) for name in (HOME, PRODUCT)
        }
        known = experiment_rows.find_experiment(connection, NAME)
    if not versions[PRODUCT]:
        scenarios.put_scenario(database, CLI, PRODUCT, PRODUCT_PAGE, now_us)
    if versions[HOME]:
        return
    scenarios.put_scenario(database, CLI, HOME, START_PAGE, now_us)
    varied = scenarios.put_scenario(database, CLI, HOME, replace(START_PAGE, diversity=0.6), now_us)
    scenarios.roll_back(database, CLI, HOME, None, now_us)
    if known is not None:
        return
    arms = Arm("as-it-is"), Arm("varied", scenario_version=varied.version)
    spec = ExperimentSpec(arms=arms, scenario=HOME, metric="click_through", note=NOTE)
    experiments.draft(database, CLI, NAME, spec, now_us)
    experiments.start(database, CLI, NAME, None, now_us)
