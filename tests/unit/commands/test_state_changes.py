"""Every function of `storage.entities` that writes is called by `recsys.commands` alone, or is named
here as the way of data: so a change that people steer cannot come in past its audit line.
"""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
ENTITIES = ROOT / "recsys" / "storage" / "entities"
# A statement given as text may be one that changes rows.
WRITES = {"insert", "update", "delete", "upsert", "exec_driver_sql"}

DATA = {
    "events, items and answers as they arrive": {
        *("event_rows.insert_events", "rejected_rows.add_rejections", "event_import.import_chunks"),
        "event_import.import_file",
        *("item_rows.put_items", "item_rows.add_unknown", "item_rows.delete_item"),
        *("impression_rows.insert_impressions", "impression_rows.note_shown"),
        *("rejected_rows.mark_replayed", "event_import.replay", "shadow_rows.add_shadow"),
    },
    "feedback, users and items of Gorse's clients and exports as they arrive": {
        *("feedback_rows.write_feedback", "feedback_rows.enter_due"),
        *("feedback_rows.delete_pair", "feedback_rows.delete_of_item"),
        *("gorse_catalogue.put_gorse_items", "gorse_catalogue.import_gorse_catalogue"),
        "attribute_rows.put_attributes",
    },
    "how far streams have been read, and by whom": {
        *("stream_rows.add_partitions", "stream_rows.advance", "stream_rows.report"),
        *("stream_rows.join", "stream_rows.beat", "stream_rows.claim", "stream_rows.release"),
        *("stream_rows.leave", "stream_rows.remove_silent"),
    },
    "what is counted and derived from them": {
        *("click_rows.attribute_clicks", "item_rows.replace_followers"),
        "live_quality_rows.put_hour",
        *("conversion_attribution.attribute_batch", "conversion_attribution.attribute_due"),
        *("experiment_unit_rows.count_outcomes", "experiment_unit_rows.put_look"),
    },
    "an installation's own name and key, made when they are first asked for": {
        *(
            "key_values.database_id",
            "key_values.arm_key",
            "tombstone_rows.is_erased",
            "tombstone_rows.without_erased",
        ),
    },
    "what time takes": {
        *("event_rows.delete_before", "impression_rows.delete_impressions_before"),
        *("job_rows.delete_runs_before", "account_rows.delete_old_sessions"),
        *("version_rows.retire", "attribute_rows.delete_idle", "conversion_rows.forget_owners"),
        "experiment_unit_rows.forget_experiment",
    },
    "runs and schedules as the scheduler keeps them": {
        *("job_rows.claim_slot", "job_rows.assign_run", "job_rows.start_run", "job_rows.beat"),
        *("job_rows.finish_run", "job_rows.ask_to_stop", "job_rows.add_line"),
        *("schedule_rows.put_schedule", "schedule_rows.keep_schedules"),
        *("lease_rows.take_lease", "lease_rows.renew_lease", "lease_rows.release_lease"),
    },
    "a session of the dashboard in use": {
        *("account_rows.begin_attempt", "account_rows.touch_session"),
        *("account_rows.set_flash", "account_rows.clear_flash"),
    },
}


@cache
def parsed(path):
    return ast.parse(path.read_text())


def called_in(tree, own):
    """Names called below `tree`: 'module.function', or 'own.function' where no module stands before."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                yield f"{function.value.id}.{function.attr}"
            elif isinstance(function, ast.Name):
                yield f"{own}.{function.id}"


def writes(tree):
    """Whether a statement is made below `tree` that changes rows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "attr", None) or getattr(function, "id", None)
            if name in WRITES:
                return True
    return False


def writers():
    """The functions of storage.entities that write, themselves or through one another."""
    functions = {
        f"{path.stem}.{node.name}": node
        for path in ENTITIES.glob("*.py")
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef)
    }
    found = {name for name, node in functions.items() if writes(node)}
    while True:
        more = {
            name
            for name, node in functions.items()
            if found.intersection(called_in(node, name.partition(".")[0]))
        } - found
        if not more:
            return found
        found |= more


def callers(found):
    """(writer, file) of every call from outside storage."""
    for top in ("recsys", "jobs"):
        for path in sorted((ROOT / top).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if inside.parts[:2] == ("recsys", "storage"):
                continue
            tree = parsed(path)
            imported = {
                alias.asname or alias.name: f"{node.module.rpartition('.')[2]}.{alias.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module
                for alias in node.names
            }
            for name in called_in(tree, ""):
                writer = imported.get(name[1:]) if name.startswith(".") else name
                if writer in found:
                    yield writer, inside


def test_changes_of_state_are_made_by_commands_alone():
    data = set().union(*DATA.values())
    past = [
        (writer, str(path))
        for writer, path in callers(writers())
        if writer not in data and path.parts[:2] != ("recsys", "commands")
    ]
    assert past == []


def test_the_way_of_data_names_nothing_that_is_gone():
    found = writers()
    assert {"version_rows.deploy", "erasure_rows.erase", "job_rows.request_run"} <= found
    assert set().union(*DATA.values()) <= found
