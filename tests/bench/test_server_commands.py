"""Measurements of real servers, in small."""

import pytest


@pytest.mark.slow
def test_pages_in_small(measure):
    pages = measure("pages", "--events", 10_000)
    assert pages["pages"]["overview, 24 h"]["with_assets_kib"] < 300
    assert all(page["ms"] > 0 for page in pages["pages"].values())


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_small_measurements_of_real_servers(measure, database_url):
    spare = ("--postgresql", database_url)
    served = measure("serve", "--items", 300, "--seconds", 0.5, *spare)
    assert {run["database"] for run in served["runs"]} == {"sqlite", "postgresql"}
    for run in served["runs"]:
        assert run["errors"] == 0
        assert 0 < run["ratio"] < 1
        assert 0 < run["p50_ms"] <= run["p90_ms"] <= run["p99_ms"]
    assert all(run["errors"] == 0 for run in served["open_loop"])
    held = measure("serve", "--items", 300, "--memory", 2_000)
    assert held["errors"] == 0 and len(held["warm_mib"]) == len(held["end_mib"]) == 2
    assert min(*held["warm_mib"], *held["end_mib"]) > 10
    assert 0 < held["caches_mib"]["histories"] < 32
    fresh = measure("freshness", "--posts", 40, "--items", 300, *spare)
    assert (fresh["posted"], fresh["reflected"]) == (40, 40)


@pytest.mark.slow
def test_promotions_under_load_fail_no_request(measure):
    found = measure("swap", "--promotions", 6, "--items", 300)
    assert found["promotions"] == 6
    assert (found["not_2xx"], found["stale"]) == (0, 0)
    assert found["answers"] > 100
    assert found["versions_seen"] > 2


@pytest.mark.slow
def test_intake_in_small(measure):
    found = measure("intake", "--seconds", 0.2, "--sizes", "20", "--workers", 1)
    assert [(run["size"], run["connections"]) for run in found["runs"]] == [(20, 1), (20, 8)]
    for run in found["runs"]:
        assert run["errors"] == 0
        assert run["events_per_second"] > run["requests_per_second"] > 0
        assert 0 < run["p50_ms"] <= run["p99_ms"]
        assert run["bare_events_per_second"] > 0
    assert [one["size"] for one in found["answers"]] == [0, 20]
    assert all(one["errors"] == 0 for one in found["answers"])
