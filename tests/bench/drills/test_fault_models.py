"""The short form of the 400 damaged model files."""

from contextlib import closing

import pytest

from bench.drills import fault_models
from bench.drills.fault_stage import Stage
from recsys.config import Settings
from recsys.storage.engine.database import Database


@pytest.mark.slow
def test_damaged_and_foreign_files_are_refused_by_name_and_the_champion_answers(
    database_url, tmp_path, tiny_shop, publish
):
    with closing(Database(database_url)) as database:
        publish(tiny_shop, database, tmp_path / "models")
    models = tmp_path / "models"
    serving = {"max_body_bytes": 1_000_000, "reload_seconds": 0.1, "control_share": 0}
    settings = Settings(registry={"path": models}, serving=serving)
    stage = Stage(database_url, models, settings, "")
    fault = fault_models.damaged_models(stage, 80)
    assert fault.held, fault
    assert fault.figures["refused"] == 80
    assert len(fault.figures["kinds"]) == 11
