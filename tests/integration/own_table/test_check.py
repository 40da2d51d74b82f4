"""recsys events check on a mapped table, as a command."""

import json

from tests.integration.command_line.conftest import Shell


def check(folder, clicks, *arguments, status=0):
    keys = clicks.settings(folder / "models").events.model_dump(exclude_unset=True)
    keys["url"] = clicks.url
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    config = folder / "config.toml"
    config.write_text("[events]\n" + "\n".join(lines))
    shell = Shell(folder, f"sqlite:///{folder}/recsys.db")
    return shell.run("events", "check", "--config", config, *arguments, status=status)


def test_it_reports_rows_the_index_and_the_grant(tmp_path, own, tiny_shop, two_clicks):
    two_clicks.fill(tiny_shop.events)
    page = tmp_path / "check.html"
    found = json.loads(check(tmp_path, two_clicks, "--json", "--html", page).splitlines()[-1])
    assert found["rows_read"] == found["rows_kept"] == tiny_shop.events.num_rows
    assert found["users"] == 150 and found["signal"]["positions"] > 300
    source = found["source"]
    assert source["served"] is False and "CREATE INDEX" in source["serving_refused"]
    assert source["new_rows_by"] == "No"
    assert source["grant"]
    for statement in source["create_index"]:
        two_clicks.run(statement.rstrip(";"))
    again = json.loads(check(tmp_path, two_clicks, "--json").splitlines()[-1])
    assert again["source"]["served"] is True and again["source"]["create_index"] == []
    assert "<svg" in page.read_text() and "<h2>Mapping</h2>" in page.read_text()
    text = check(tmp_path, two_clicks)
    assert "verdict: " in text and "access: " in text


def test_options_of_files_need_a_file(tmp_path, two_clicks):
    said = check(tmp_path, two_clicks, "--unit", "ms", status=2)
    assert "--unit = 'ms': is of a file" in said


def test_a_mistake_is_one_line(tmp_path, own, two_clicks):
    check(tmp_path, two_clicks)  # an empty table is no mistake
    two_clicks.run('ALTER TABLE "Click Log" RENAME COLUMN "Kunde" TO "Client"')
    said = check(tmp_path, two_clicks, status=1)
    assert len(said.strip().splitlines()) == 1
    assert "events.user_column = 'Kunde': no such column" in said
