"""What another version of a scenario would have earned: over REST, on the dashboard and on the command line."""

import json

import pytest

from recsys.errors import InputError
from tests.integration import test_scenarios

# A shop of this module's own: what is popular in it changes what the estimate says.
asked, operator, shop = test_scenarios.asked, test_scenarios.operator, test_scenarios.shop


@pytest.mark.usefixtures("asked")
def test_what_another_version_would_have_earned_is_told_or_refused(
    shop, operator, tmp_path, capsys
):
    from recsys.cli import scenarios

    path, same = "/scenarios/asked/estimate", {"logic": "popular", "k": 4, "diversity": 0}
    found = shop.post(path, same)
    assert (found["version"], found["answers"], found["visitors"]) == (1, 110, 110)
    assert found["clicks"]["candidate"]["mean"] == pytest.approx(30 / 110)
    assert found["clicks"]["lift"] == {"mean": 0, "low": 0, "high": 0} and found["value"] is None
    other = {**same, "logic": "latest"}
    assert (
        "never shown there" in shop.call("POST", path, json=other, status=409).get_json()["detail"]
    )
    for wrong in ({"filter": "prise<3"}, {"colour": "red"}):
        shop.call("POST", path, json=wrong, status=422)
    shop.call("POST", "/scenarios/nowhere/estimate", json=same, status=404)
    shop.call("POST", path, json=same, scope="write", status=403)

    by_model = f"{path}?model_version=20260101-000000-aaaaaa"
    refused = shop.call("POST", by_model, json=same, status=422).get_json()
    assert "expected a registered version" in str(refused) and "model_version" in str(refused)

    form = {"name": "asked", "logic": "popular", "k": "4", "fallback": "popular"}
    part = operator("/estimate", **form)
    assert "Version 1" in part and "+0.0%" in part and "too few to tell" in part
    assert "never shown there" in operator("/estimate", **{**form, "logic": "latest"})
    assert "nearest: price" in operator("/estimate", **{**form, "filter": "prise<3"})
    assert "registered version" in operator("/estimate", **form, estimate_model="another")
    assert "No scenario" in operator("/estimate", **{**form, "name": "nowhere"})

    config, file = tmp_path / "config.toml", tmp_path / "asked.json"
    models = shop.app.extensions["recsys"].settings.registry.path
    config.write_text(f'[database]\nurl = "{shop.database.url}"\n[registry]\npath = "{models}"\n')
    file.write_text(json.dumps(same))
    for given in (file, None):
        scenarios.estimate("asked", given, None, 2_000, 14, config=config, as_json=True)
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["clicks"] == found["clicks"]
    with pytest.raises(InputError, match="expected a registered version"):
        scenarios.estimate("asked", None, "another", 2_000, 14, config=config)
