"""recsys events check on a mapped table, as a command."""

import json
import subprocess
import sys


def command(folder, clicks, *arguments):
    keys = clicks.settings(folder / "models").events.model_dump(exclude_unset=True)
    keys["url"] = clicks.url
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    config = folder / "config.toml"
    config.write_text(
        f'[database]\nurl = "sqlite:///{folder}/recsys.db"\n[events]\n' + "\n".join(lines)
    )
    return subprocess.run(
        [sys.executable, "-m", "recsys", "events", "check", "--config", config, *arguments],
        capture_output=True,
        text=True,
    )


def test_it_reports_rows_the_index_and_the_grant(tmp_path, own, tiny_shop, two_clicks):
    two_clicks.fill(tiny_shop.events)
    page = tmp_path / "check.html"
    done = command(tmp_path, two_clicks, "--json", "--html", str(page))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows_read"] == found["rows_kept"] == tiny_shop.events.num_rows
    assert found["users"] == 150 and found["signal"]["positions"] > 300
    source = found["source"]
    assert source["served"] is False and "CREATE INDEX" in source["serving_refused"]
    assert source["new_rows_by"] == "No"
    assert source["grant"]
    for statement in source["create_index"]:
        two_clicks.run(statement.rstrip(";"))
    again = json.loads(command(tmp_path, two_clicks, "--json").stdout.splitlines()[-1])
    assert again["source"]["served"] is True and again["source"]["create_index"] == []
    assert "<svg" in page.read_text() and "The mapping" in page.read_text()
    text = command(tmp_path, two_clicks).stdout
    assert "verdict: " in text and "access: " in text


def test_options_of_files_need_a_file(tmp_path, two_clicks):
    done = command(tmp_path, two_clicks, "--unit", "ms")
    assert done.returncode == 2 and "--unit = 'ms': is of a file" in done.stderr


def test_a_mistake_is_one_line(tmp_path, own, two_clicks):
    done = command(tmp_path, two_clicks)
    assert done.returncode == 0  # an empty table is no mistake
    two_clicks.run('ALTER TABLE "Click Log" RENAME COLUMN "Kunde" TO "Client"')
    done = command(tmp_path, two_clicks)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "events.user_column = 'Kunde': no such column" in done.stderr
    assert "Traceback" not in done.stderr
