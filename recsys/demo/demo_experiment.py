"""The experiment that the demo's visitors take part in: is a start page with less of the same clicked more?"""

from __future__ import annotations

from recsys.commands import experiments
from recsys.demo.visitors import HOME
from recsys.steering.experiment_spec import Arm, ExperimentSpec
from recsys.storage.engine.database import Database
from recsys.storage.entities import experiment_rows
from recsys.storage.entities.audit_rows import CLI

NAME = "variety"
VARIETY = ExperimentSpec(
    arms=(Arm("as-it-is"), Arm("varied", settings={"diversity": 0.6})),
    scenario=HOME,
    metric="click_through",
    note="Is a start page with less of the same clicked more often?",
)


def start_experiment(database: Database, now_us: int) -> None:
    """Start it where no earlier run of the demo did; one that was stopped stays stopped."""
    with database.connect() as connection:
        if experiment_rows.find_experiment(connection, NAME) is not None:
            return
    experiments.draft(database, CLI, NAME, VARIETY, now_us)
    experiments.start(database, CLI, NAME, None, now_us)
