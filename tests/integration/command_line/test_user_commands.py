"""Users' attributes on the command line."""

import json


def test_users_are_imported_shown_set_and_deleted(shell):
    shell.run("db", "upgrade")
    path = shell.folder / "customers.csv"
    path.write_text("no,plan,city\nann,pro,Ulm\nbob,free,\n,free,Bonn\nbob,plus,\n")
    read = ("users", "import", path, "--map", "user=no")
    counts = {"read": 4, "stored": 3, "new": 2, "rejected": 1, "skipped": 0}
    assert shell.json(*read) == counts
    assert shell.json(*read) == {**counts, "new": 0}
    (rejected,) = shell.json("events", "rejected")["rows"]
    assert rejected["reason"].startswith("user_id = None")
    assert json.loads(rejected["raw"]) == {"no": "", "plan": "free", "city": "Bonn"}

    ann = ("users", "attributes", "ann")
    found = shell.json(*ann)
    assert (found["user_id"], found["attributes"]) == ("ann", {"plan": "pro", "city": "Ulm"})
    assert '  plan: "pro"' in shell.run(*ann)
    shell.run(*ann, "--set", '{"plan": ["a", 1]}')
    assert shell.json(*ann)["attributes"] == {"plan": ["a", 1]}
    assert shell.json(*ann, "--delete")["attributes"] == {"plan": ["a", 1]}
    assert "no attributes of user 'ann'" in shell.run(*ann, status=1)
    assert "no attributes of user 'ann'" in shell.run(*ann, "--delete", status=1)

    removed = shell.json("users", "delete", "bob")["removed"]
    assert removed["attributes"] == 1
    counts |= {"stored": 1, "skipped": 2, "new": 1}
    assert shell.json(*read) == counts


def test_what_is_no_object_of_attributes_is_refused(lone_shell):
    ann = ("users", "attributes", "ann")
    for given, said in (
        ("{", "not JSON"),
        ("[1]", "expected a JSON object"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
    ):
        assert said in lone_shell.run(*ann, "--set", given, status=1)
    assert "not both" in lone_shell.run(*ann, "--set", "{}", "--delete", status=2)
