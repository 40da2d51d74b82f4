"""Alerts and board ask for metrics that are there; spans and log lines can be joined to an answer."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from recsys import tracing
from recsys.cli import main
from recsys.cli.terminal import set_up_logging
from recsys.config import Settings
from recsys.events.times import HOUR_US
from recsys.ingest.streams.broker import Partition
from recsys.storage.entities import (
    item_rows,
    job_rows,
    lease_rows,
    live_quality_rows,
    schedule_rows,
    stream_rows,
)
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.storage.entities.stream_rows import Move
from recsys.web import prometheus_metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
BOARD = DEPLOY / "grafana" / "recsys.json"
ASKED = re.compile(r"\b(recsys_\w+)(?:\{([^}]*)\})?")


def alert_expressions():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def board_expressions():
    panels = json.loads(BOARD.read_text())["panels"]
    return {f"{p['title']} {t['refId']}": t["expr"] for p in panels for t in p["targets"]}


@pytest.fixture
def exported(database, tmp_path, tiny_shop, publish, Service):
    """What /metrics says after a little of everything, and what it may: sample name -> its labels."""
    publish(tiny_shop, database, tmp_path / "models")
    settings = Settings(registry={"path": tmp_path / "models"}, schedule={"backup": "0 1 * * *"})
    with database.begin() as connection:
        seen = lease_rows.read_lease(connection, lease_rows.SCHEDULER)
        lease_rows.take_lease(connection, seen, "here:1:x", 1)
        job_rows.request_run(connection, "retrain", "cli", 2**52)
        hour_us = time.time_ns() // 1_000 // HOUR_US * HOUR_US - HOUR_US
        live_quality_rows.put_hour(connection, LiveQuality(hour_us, 10, 2, 6, 3.5, 5, 2.5, 1, 0.5))
        stream_rows.add_partitions(connection, "kafka://a:1", [Partition("clicks", 0)])
        (row,) = stream_rows.list_partitions(connection)
        stream_rows.report(connection, [row], {row.key: 3}, {}, 1)
    with closing(Service(database, settings)) as service:
        service.post("/events", {"user_id": "u", "item_id": "P0001"})
        service.get("/users/u/recommendations")
        found = {}
        for sample in samples(service):
            found.setdefault(sample.name, set()).update(sample.labels)
    return {**declared(), **found}


def samples(service):
    text = service.client.get("/metrics").get_data(as_text=True)
    return [one for family in text_string_to_metric_families(text) for one in family.samples]


def declared():
    """Of each counter, gauge and histogram of this project, the sample it gives, and its labels."""
    ending = {"counter": "_total", "gauge": "", "histogram": "_bucket"}
    found = {}
    for metric in vars(prometheus_metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            labels = {*metric._labelnames, *(["le"] if family.type == "histogram" else [])}
            found[family.name + ending[family.type]] = labels
    return found


def figures(service, name):
    """The samples of that name: their labels' values -> value."""
    return {tuple(s.labels.values()): s.value for s in samples(service) if s.name == name}


def test_every_expression_asks_for_metrics_and_labels_that_are_exported(exported):
    expressions = {**alert_expressions(), **board_expressions()}
    assert len(expressions) > 25
    for name, expression in expressions.items():
        asked = ASKED.findall(expression)
        assert asked or "up{" in expression, name
        for metric, matchers in asked:
            assert metric in exported, f"{name}: {metric}"
            for label in re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", matchers):
                assert label in exported[metric], f"{name}: {metric}{{{label}}}"
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        labels = set().union(*(exported[metric] for metric, _ in asked)) if asked else set()
        for label in ", ".join(grouped).split(", "):
            assert not label or label in labels, f"{name}: by {label}"


def test_every_metric_is_shown_on_the_board(exported):
    shown = {metric for e in board_expressions().values() for metric, _ in ASKED.findall(e)}
    ours = {name for name in exported if name.startswith("recsys_")}
    assert {*declared(), "recsys_job_failing", "recsys_backup_age_seconds"} <= ours
    unseen = {name for name in ours - shown if not name.endswith(("_created", "_sum", "_count"))}
    assert unseen == set()


def test_a_job_fails_until_its_next_run_goes_well_and_backups_grow_old(database, tmp_path, Service):
    """What fails once a day is told of as well as what fails each minute."""
    now, hour, day = time.time_ns() // 1_000, 3_600 * 10**6, 24 * 3_600 * 10**6
    ends = [
        ("retrain", "failed", now - 20 * hour),
        ("refresh", "failed", now - 2 * hour),
        ("refresh", "succeeded", now - hour),
        ("refresh", "cancelled", now),
        ("prune", "timed_out", now - hour),
        ("tune", "failed", now - 9 * day),  # too long ago to be told of
    ]

    def end(connection, job, state, at_us):
        run_id = job_rows.request_run(connection, job, "cli", at_us)
        job_rows.finish_run(connection, run_id, state, at_us)

    settings = Settings(registry={"path": tmp_path}, schedule={"backup": "0 1 * * *"})
    with closing(Service(database, settings)) as service:
        with database.begin() as connection:
            for one in ends:
                end(connection, *one)
        failing = {("retrain",): 1, ("refresh",): 0, ("prune",): 1, ("tune",): 0}
        assert figures(service, "recsys_job_failing") == failing
        assert figures(service, "recsys_backup_age_seconds") == {(): math.inf}
        with database.begin() as connection:
            schedule_rows.put_schedule(connection, "backup", "0 1 * * *", None, now - 2 * hour)
        (age,) = figures(service, "recsys_backup_age_seconds").values()
        assert 2 * 3_600 <= age < 3 * 3_600
        with database.begin() as connection:
            end(connection, "retrain", "succeeded", now)
            end(connection, "backup", "succeeded", now - 60 * hour)
            end(connection, "backup", "failed", now - hour)
        after = figures(service, "recsys_job_failing")
        assert (after[("retrain",)], after[("backup",)]) == (0, 1)
        (age,) = figures(service, "recsys_backup_age_seconds").values()
        assert 60 * 3_600 <= age < 61 * 3_600
    with closing(Service(database, Settings(registry={"path": tmp_path}))) as service:
        assert figures(service, "recsys_backup_age_seconds") == {}


def test_live_quality_of_late_is_told_once_there_is_some(database, tmp_path, Service):
    hour_us = time.time_ns() // 1_000 // HOUR_US * HOUR_US
    with closing(Service(database, Settings(registry={"path": tmp_path}))) as service:
        assert figures(service, "recsys_live_quality_recall") == {}
        with database.begin() as connection:
            for back, hits in ((1, 60), (2, 40), (30, 99)):  # the last is of the day before
                found = LiveQuality(hour_us - back * HOUR_US, 100, 20, hits, hits / 2, 30, 9, 10, 5)
                live_quality_rows.put_hour(connection, found)
        recall = {("live",): 0.5, ("still",): 0.3, ("popular",): 0.1}
        assert figures(service, "recsys_live_quality_recall") == recall
        mrr = {("live",): 0.25, ("still",): 0.09, ("popular",): 0.05}
        assert figures(service, "recsys_live_quality_mrr") == mrr
        assert figures(service, "recsys_live_quality_positions") == {(): 200}
        assert figures(service, "recsys_live_quality_unknown_share") == {(): 0.2}


def test_streams_are_told_by_partition(database, tmp_path, Service):
    with closing(Service(database, Settings(registry={"path": tmp_path}))) as service:
        assert figures(service, "recsys_stream_silence_seconds") == {}
        with database.begin() as connection:
            two = [Partition("clicks", number) for number in range(2)]
            stream_rows.add_partitions(connection, "kafka://a:1", two)
            first, _ = stream_rows.list_partitions(connection)
            move = Move(first, "9", {"accepted": 7, "rejected": 1, "missed": 2})
            stream_rows.advance(connection, [move], time.time_ns() // 1_000)
            stream_rows.report(
                connection, [first], {first.key: 40}, {}, time.time_ns() // 1_000 - 5_000_000
            )
        place = ("0", "kafka://a:1", "clicks")  # partition, source, topic
        assert figures(service, "recsys_stream_lag_messages") == {place: 40}
        silences = figures(service, "recsys_stream_silence_seconds")
        assert 5 <= silences[place] < 60
        assert silences["1", "kafka://a:1", "clicks"] == float("inf")
        rows = figures(service, "recsys_stream_rows_total")
        assert rows["accepted", *place] == 7
        assert rows["rejected", *place] == 1
        assert figures(service, "recsys_stream_missed_messages_total")[place] == 2


def test_that_no_event_came_yet_is_told_where_events_are_posted(database, tmp_path, Service):
    own = {"table": "clicks", "user_column": "u", "item_column": "i", "timestamp_column": "t"}
    for mapping, outcomes in (({}, set(prometheus_metrics.OUTCOMES)), (own, set())):
        prometheus_metrics.events.clear()
        settings = Settings(registry={"path": tmp_path}, events=mapping)
        with closing(Service(database, settings)) as service:
            told = figures(service, "recsys_events_total")
        assert told == {(outcome,): 0 for outcome in outcomes}


def test_the_board_is_whole():
    board = json.loads(BOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) > 8
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${source}"


def test_every_alert_says_what_to_do():
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert {"summary", "action"} == set(rule["annotations"])
            assert rule["labels"]["severity"] in ("critical", "warning")


def test_promtool_takes_the_alerts():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def spans():
    """Spans of this process, kept in memory; a function that gives those taken so far."""
    exporter = InMemorySpanExporter()
    tracing.start(Settings(logging={"traces": True}), exporter)

    def taken():
        tracing._provider.force_flush()
        return exporter.get_finished_spans()

    yield taken
    tracing.stop()


def test_a_request_is_a_span_of_the_callers_trace(bare, spans):
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "asked-1"}
    bare.call("GET", "/users/somebody@example.com/recommendations", headers=headers)
    (span,) = spans()
    assert span.name == "GET /api/v1/users/<id:user_id>/recommendations"
    assert f"{span.context.trace_id:032x}" == trace
    assert f"{span.parent.span_id:016x}" == parent
    assert span.attributes["recsys.request_id"] == "asked-1"
    assert span.attributes["http.response.status_code"] == 200
    told = span.to_json()
    for secret in ("somebody", *bare.keys.values()):
        assert secret not in told


def test_stages_are_spans_within_the_training(spans):
    @tracing.traced("stage")
    def stage():
        raise ValueError("a user's value")

    with pytest.raises(ValueError, match="value"), tracing.span("train", run_id=3):
        stage()
    inner, outer = spans()
    assert (inner.name, outer.name) == ("stage", "train")
    assert inner.parent.span_id == outer.context.span_id
    assert not inner.status.is_ok
    assert "a user's value" not in inner.to_json()


@pytest.mark.parametrize("command", ["serve", "schedule"])
def test_spans_without_their_extra_are_refused_at_the_start(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_LOGGING__TRACES", "true")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # the command sets it; put back at the end
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if it were not there
    monkeypatch.setattr("sys.argv", ["recsys", command])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'recsys[otel]'" in line


def test_nothing_is_taken_unless_asked(bare):
    tracing.start(Settings())
    assert tracing._provider is None
    assert tracing.begin_request("GET", "/", "", "x") is None


@pytest.mark.parametrize(("level", "status"), [("info", 500), ("debug", 404)])
def test_the_request_id_of_the_answer_is_in_each_line(bare, capsys, monkeypatch, level, status):
    set_up_logging(Settings(logging={"level": level, "format": "json"}))
    if status == 500:
        monkeypatch.setattr(item_rows, "get_items", None)
    asked = {"X-Request-ID": f"asked-{status}"}
    response = bare.call("GET", "/items/none", status=status, headers=asked)
    assert response.headers["X-Request-ID"] == f"asked-{status}"
    assert response.get_json()["request_id"] == f"asked-{status}"
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["request_id"] for line in lines} == {f"asked-{status}"}
    told = ["request failed", "request"] if status == 500 else ["request"]
    assert [line["event"] for line in lines] == told
