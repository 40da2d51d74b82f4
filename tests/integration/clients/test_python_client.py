"""clients/python against a served shop: both clients, the queue through outages, the package."""

import asyncio
import os
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from recsys_client import AsyncRecsys, QueueOptions, Recsys, RecsysError

from tests.integration.clients.conftest import ROOT

ITEMS = [f"P00{n}" for n in range(10, 60)]
QUICK = {"linger_seconds": 0.01}


@pytest.fixture
def shop_client(served):
    """shop_client(**options): a client with a key for everything, closed at the end."""
    opened = []

    def make(scope="admin", queue=None, **options):
        client = Recsys(
            served.url, served.keys[scope], queue=QueueOptions(**(queue or QUICK)), **options
        )
        opened.append(client)
        return client

    yield make
    for one in opened:
        one.close(0)


def test_types_are_those_of_the_document(tmp_path):
    from tools import client_types

    known = client_types.schemas()
    assert client_types.PYTHON.read_text() == client_types.python_text(known), "run `make client`"
    assert client_types.TYPESCRIPT.read_text() == client_types.script_text(known), (
        "run `make client`"
    )


def test_events_go_in_and_recommendations_come_out(served, shop_client):
    recsys = shop_client()
    given = [recsys.track(item, session_id="python", value=1.5) for item in ("P0001", "P0042")]
    assert recsys.flush(10)
    assert [one.event_id for one in served.stored("python")] == given
    assert recsys.counts.accepted == 2
    answer = recsys.recommend(session_id="python", k=5)
    assert (len(answer["items"]), answer["last_event_id"]) == (5, given[-1])
    many = recsys.recommend_many([{"session_id": "python"}, {"user_id": "u1"}])["answers"]
    assert [one["session_id"] for one in many] == ["python", None]
    shown = [one["item_id"] for one in answer["items"][:2]]
    told = recsys.impressions(recommendation_id=answer["recommendation_id"], items=shown)
    assert told["recommendation_id"] == answer["recommendation_id"]
    assert recsys.similar("P0001", 3)["items"] and recsys.next("P0001", 3)["items"]
    assert recsys.popular(3, window_days=30)["items"][0]["rank"] == 1
    assert recsys.put_items([{"item_id": "a/b", "title": "Odd"}])["stored"] == 1
    assert recsys.similar("a/b")["items"] is not None
    assert recsys.merge("python-user", session_id="python")["merged"] == "python"
    assert recsys.set_attributes("python-user", {"plan": "pro"})["attributes"] == {"plan": "pro"}
    assert recsys.attributes("python-user")["user_id"] == "python-user"
    assert recsys.delete_attributes("python-user")["attributes"] == {"plan": "pro"}
    event = {"item_id": "P0001", "user_id": "python-user", "event_id": "mine"}
    sent = [recsys.send_events([event]) for _ in range(2)]
    assert [(one["accepted"], one["duplicates"]) for one in sent] == [(1, 0), (0, 1)]


def test_what_is_wrong_is_said(served, shop_client):
    with pytest.raises(RecsysError, match="k: Input should be greater") as refused:
        shop_client().recommend(session_id="x", k=0)
    assert refused.value.status == 422 and refused.value.errors[0]["field"] == "k"
    with pytest.raises(RecsysError, match="lacks the scope read"):
        shop_client("write").popular()
    with pytest.raises(ValueError, match="expected such as https://"):
        Recsys("recommendations.example", "key")
    away = Recsys("http://127.0.0.1:9", "key", retries=0)
    with pytest.raises(RecsysError, match=r"http://127\.0\.0\.1:9 cannot be reached") as refused:
        away.popular()
    assert refused.value.status == 0 and refused.value.is_transient
    with pytest.raises(TypeError):
        shop_client().track("P0001", user_id="u", properties={"at": object()})


def test_refused_and_dropped_events_are_counted_and_told(served, shop_client):
    told = []
    options = {"on_error": lambda error, event: told.append((str(error), event)), "max_waiting": 3}
    recsys = shop_client(queue={**options, "linger_seconds": 30})
    recsys.track("P0001", user_id="u")
    recsys.track("P0001")  # nobody's
    recsys.track("P0001", user_id="u", value="much")
    lost = recsys.track("P0002", user_id="u")
    assert told[0][1]["event_id"] == lost and "the queue is full" in told[0][0]
    assert recsys.flush(10)
    counts = recsys.counts
    assert (counts.accepted, counts.rejected, counts.dropped, counts.waiting) == (1, 2, 1, 0)
    assert [event["item_id"] for _, event in told] == ["P0002", "P0001", "P0001"]
    assert "user_id" in told[1][0] and "value = 'much'" in told[2][0]
    reader = shop_client("read", queue={**QUICK, **options})
    reader.track("P0001", user_id="u")
    assert reader.flush(10) and reader.counts.rejected == 1
    assert "lacks the scope write" in told[-1][0]


def test_an_outage_loses_nothing_and_stores_nothing_twice(served, shop_client):
    """Answers are lost on their way, then the service is gone, then back; events come all the while."""
    told = []
    recsys = shop_client(queue={**QUICK, "max_batch": 7, "on_error": lambda *one: told.append(one)})
    given = []

    def shop():
        for item in ITEMS:
            given.append(recsys.track(item, user_id="outage"))
            time.sleep(0.01)

    shopping = threading.Thread(target=shop)
    served.cut = 2
    shopping.start()
    time.sleep(0.2)
    served.stop()
    assert not recsys.flush(0.05)
    shopping.join()
    assert recsys.counts.waiting > 0
    served.start()
    assert recsys.flush(30)
    assert [one.event_id for one in served.stored("outage")] == given
    assert [one.item_id for one in served.stored("outage")] == ITEMS
    counts = recsys.counts
    assert counts.duplicates > 0 and counts.accepted + counts.duplicates == len(ITEMS)
    assert told and all(event is None and error.is_transient for error, event in told)


def test_a_service_that_asks_for_time_gets_it(served, shop_client, monkeypatch):
    """However often someone flushes, nothing is sent before Retry-After has passed."""
    times = []

    def busy(environ, start_response):
        times.append(time.monotonic())
        if len(times) == 1:
            start_response("429 Too Many Requests", [("Retry-After", "1")])
            return [b"{}"]
        return served.service.app(environ, start_response)

    monkeypatch.setattr(served, "_answer", busy)
    served.stop()
    served.start()
    recsys = shop_client()
    recsys.track("P0001", user_id="patient")
    while not recsys.flush(0.05):
        pass
    assert times[1] - times[0] >= 1
    assert len(served.stored("patient")) == 1
    monkeypatch.undo()
    served.stop()
    served.start()


def test_a_question_is_asked_again_and_an_idle_connection_may_have_been_closed(served, shop_client):
    recsys = shop_client()
    assert recsys.popular(1)
    served.stop()
    threading.Timer(0.2, served.start).start()
    assert recsys.recommend(session_id="x", k=1)["items"]
    served.cut = 1
    assert recsys.recommend(session_id="x", k=1)["items"]


def test_a_forked_process_sends_its_own_events_alone(served):
    program = """
import os, sys
from recsys_client import QueueOptions, Recsys
recsys = Recsys(sys.argv[1], sys.argv[2], queue=QueueOptions(linger_seconds=30))
recsys.track("P0001", user_id="forked")
child = os.fork()
recsys.track("P0002" if child else "P0003", user_id="forked")
if child:
    os.waitpid(child, 0)
# closed at exit
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python")}
    command = [sys.executable, "-c", program, served.url, served.keys["write"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(one.item_id for one in served.stored("forked")) == ["P0001", "P0002", "P0003"]


def test_the_asynchronous_client_does_the_same(served):
    async def shop():
        queue = QueueOptions(linger_seconds=0.01, max_batch=7)
        async with AsyncRecsys(served.url, served.keys["admin"], queue=queue) as recsys:
            served.cut = 1
            given = [recsys.track(item, user_id="async") for item in ITEMS]
            await asyncio.sleep(0.1)
            served.stop()
            given += [recsys.track(item, user_id="async") for item in ITEMS]
            assert not await recsys.flush(0.3)
            served.start()
            assert await recsys.flush(30)
            assert [one.event_id for one in served.stored("async")] == given
            counts = recsys.counts
            assert counts.accepted + counts.duplicates == len(given) and counts.duplicates > 0
            answers = await asyncio.gather(
                recsys.recommend(user_id="async", k=3),
                recsys.popular(3),
                recsys.similar("P0001", 3),
                recsys.next("P0001", 3),
                recsys.recommend_many([{"user_id": "u1", "k": 2}]),
            )
            assert all(next(iter(one.values())) for one in answers)
            assert (await recsys.merge("async-user", other_user_id="async"))["merged"] == "async"
            assert (await recsys.put_items([{"item_id": "P0001"}]))["stored"] == 1
            assert (await recsys.set_attributes("async-user", {"a": 1}))["attributes"] == {"a": 1}
            assert (await recsys.attributes("async-user"))["attributes"] == {"a": 1}
            assert (await recsys.delete_attributes("async-user"))["attributes"] == {"a": 1}
            assert (await recsys.send_events([{"item_id": "P0001", "user_id": "x"}]))["accepted"]
            assert (await recsys.impressions(items=["P0001"], user_id="x"))["recommendation_id"]
            with pytest.raises(RecsysError, match="k: "):
                await recsys.recommend(user_id="x", k=0)
            recsys.track("P0001", user_id="async-last")
        assert len(served.stored("async-last")) == 1  # sent by closing
        with pytest.raises(RecsysError, match="closed"):
            recsys.track("P0001")

    asyncio.run(shop())


def test_the_package_is_built_typed_and_needs_nothing(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run(
        [*command, ROOT / "clients/python"], check=True, capture_output=True, timeout=120
    )
    (wheel,) = tmp_path.glob("recsys_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(one for one in names if one.endswith("/METADATA"))).decode()
    modules = {
        f"recsys_client/{one.name}" for one in (ROOT / "clients/python/recsys_client").glob("*.py")
    }
    assert modules | {"recsys_client/py.typed"} <= names
    assert "Requires-Dist" not in metadata


def test_the_example_prints_what_comes_next(served):
    environment = {**os.environ, "RECSYS_KEY": served.keys["admin"]}
    environment["PYTHONPATH"] = str(ROOT / "clients/python")
    command = [sys.executable, ROOT / "examples/python_client.py", served.url, "example", "P0001"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 5
    assert [one.item_id for one in served.stored("example")] == ["P0001"]
