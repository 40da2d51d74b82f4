"""`recsys plan`: by shipped figures, by this machine's own, and nonsense is refused by name."""

import json
from datetime import UTC, datetime

import orjson
import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.cli.register import register
from recsys.config import Settings
from recsys.demo import calibration
from recsys.demo.simulation import ShopSize
from recsys.errors import InputError
from recsys.ops.capacity import SHIPPED

SHOP = ("--events", "10000000", "--items", "50000", "--rps", "50")


@pytest.fixture
def run(tmp_path, monkeypatch):
    register(app)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_REGISTRY__PATH", str(tmp_path / "models"))
    return lambda *arguments: CliRunner().invoke(app, ["plan", *arguments])


def test_a_plan_by_shipped_and_by_measured_figures(run, tmp_path):
    text = run(*SHOP)
    assert text.exit_code == 0
    assert "cold training on 2 cores" in text.stdout
    assert f"costs: {SHIPPED.source}" in text.stdout
    shipped = json.loads(run(*SHOP, "--json").stdout.splitlines()[-1])
    assert set(shipped) == {"shop", "costs", "plan"}
    assert shipped["shop"] == {"events": 10**7, "items": 50_000, "requests": 50.0, "months": 3}
    assert shipped["costs"] == vars(SHIPPED)

    own = {**vars(SHIPPED), "source": "measured", "cores": 8, "training_events": 330_000.0}
    (tmp_path / "plan.json").write_bytes(orjson.dumps(own))
    measured = json.loads(run(*SHOP, "--json").stdout.splitlines()[-1])
    assert measured["costs"] == own
    assert measured["plan"]["cold_hours"] == pytest.approx(shipped["plan"]["cold_hours"] / 10)
    assert "machines of 8 cores that train" in run(*SHOP).stdout


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"cores": 2}'])
def test_figures_that_are_none_are_not_used(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match="--measure"):
        calibration.kept_costs(Settings(registry={"path": tmp_path / "models"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--events", "0"),
        ("--events", "many"),
        ("--items", "-1"),
        ("--rps", "nan"),
        ("--rps", "inf"),
        ("--months", "0"),
        ("--events", "1000000000001"),
    ],
)
def test_nonsense_is_refused_by_name(run, name, value):
    done = run(*SHOP, name, value)
    assert done.exit_code != 0
    assert name in str(done.exception) + done.output


@pytest.mark.slow  # a measurement, which wants the machine for itself
@pytest.mark.timeout(900)
def test_this_machine_is_measured(tmp_path):
    settings = Settings(registry={"path": tmp_path / "models"})
    said = []
    small = ShopSize(products=300, shoppers=400, events=5_000)
    found = calibration.measure(settings, small, datetime(2026, 1, 1, tzinfo=UTC), said.append)
    assert calibration.kept_costs(settings) == found
    assert len(said) == 4
    for name, value in vars(found).items():
        assert name == "source" or value > 0, name
    assert 36 <= found.event_bytes < 10_000
    assert not (tmp_path / "models").exists()
