"""Gorse's own clients, unchanged: what their suites assert, on this service."""

import asyncio
import json
import shutil
import subprocess
import threading
from contextlib import closing

import pytest
from gorse import AsyncGorse, Gorse, GorseException
from werkzeug.serving import make_server

from recsys.storage.engine.database import Database
from recsys.storage.entities import key_rows
from recsys.storage.schema import migrate
from tests.conftest import ROOT, unavailable

NODE = ROOT / "tests" / "node"
TIME = "2022-08-07T00:26:46Z"


@pytest.fixture(scope="module")
def address(tmp_path_factory, tiny_shop, publish, Service, settings_for):
    """Address and key of a served installation that has learned the tiny shop."""
    folder = tmp_path_factory.mktemp("gorse")
    database = Database(f"sqlite:///{folder}/recsys.db")
    migrate.upgrade(database)
    publish(tiny_shop, database, folder / "models")
    settings = settings_for(folder / "models", gorse=True)
    with closing(database), closing(Service(database, settings)) as service:
        with database.begin() as connection:
            key = key_rows.create_key(connection, "gorse", ["read", "write"], 1)
        server = make_server("127.0.0.1", 0, service.app)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.port}", key
        server.shutdown()
        thread.join()
        server.server_close()


class Waiting:
    """The async client's methods, each waited for, so that one suite serves both clients."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        def call(*given, **more):
            async def work():
                return await getattr(self.client, name)(*given, **more)

            return asyncio.run(work())

        return call


@pytest.fixture(params=["sync", "async"])
def client(request, address):
    return Gorse(*address) if request.param == "sync" else Waiting(AsyncGorse(*address))


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


def test_pygorse_every_method(client, address, tiny_shop, request):
    called = set()

    class Noting:
        def __getattr__(self, name):
            called.add(name)
            return getattr(client, name)

    one, mark = Noting(), request.node.callspec.params["client"]
    user = {"UserId": f"{mark}-100", "Labels": {"gender": "M", "age": 24}, "Comment": "zhenghaoz"}
    assert one.insert_user(user) == {"RowAffected": 1}
    assert one.get_user(user["UserId"]) == user
    more = [{"UserId": f"{mark}-{n}", "Labels": None, "Comment": ""} for n in range(101, 105)]
    assert one.insert_users(more) == {"RowAffected": 4}
    listed, cursor = [], ""
    while page := one.get_users(2, cursor):
        listed += page[0]
        cursor = page[1]
        if not cursor:
            break
    assert [row for row in listed if row["UserId"].startswith(mark)] == [user, *more]
    assert one.delete_user(user["UserId"]) == {"RowAffected": 1}
    with pytest.raises(GorseException) as missing:
        one.get_user(user["UserId"])
    assert (missing.value.status_code, missing.value.message) == (
        404,
        f"user {user['UserId']} not found",
    )

    item = {
        "ItemId": f"{mark}-2000",
        "IsHidden": True,
        "Labels": {"embedding": [0.1, 0.2, 0.3]},
        "Categories": ["Comedy", "Animation"],
        "Timestamp": TIME,
        "Comment": f"Minions {mark} (2015)",
    }
    assert one.insert_item(item) == {"RowAffected": 1}
    assert one.get_item(item["ItemId"]) == item
    assert one.search_items(f"minions {mark}", n=1) == [item]
    assert item in one.get_items(1_000)[0]
    changes = {
        "is_hidden": False,
        "categories": ["Science"],
        "labels": ["ape"],
        "timestamp": "2022-08-08T00:00:00Z",
        "comment": "Planet",
    }
    assert one.update_item(item["ItemId"], **changes) == {"RowAffected": 1}
    assert one.update_item(item["ItemId"], comment="Planet of the Apes") == {"RowAffected": 1}
    assert one.get_item(item["ItemId"]) == {
        "ItemId": item["ItemId"],
        "IsHidden": False,
        "Labels": ["ape"],
        "Categories": ["Science"],
        "Timestamp": "2022-08-08T00:00:00Z",
        "Comment": "Planet of the Apes",
    }
    assert one.delete_item(item["ItemId"]) == {"RowAffected": 1}
    with pytest.raises(GorseException):
        one.get_item(item["ItemId"])

    viewer = f"{mark}-viewer"
    seen = list(dict.fromkeys(tiny_shop.events["item_id"].to_pylist()[:20]))[:3]
    assert one.insert_feedback("view", viewer, seen[0], TIME) == {"RowAffected": 1}
    rows = [
        {"FeedbackType": "view", "UserId": viewer, "ItemId": name, "Timestamp": f"2022-08-0{day}"}
        for day, name in enumerate(seen[1:], 8)
    ]
    assert one.insert_feedbacks(rows) == {"RowAffected": 2}
    listed = one.list_feedbacks("view", viewer)
    assert sorted(row["ItemId"] for row in listed) == sorted(seen)
    assert {row["Timestamp"] for row in listed if row["ItemId"] == seen[0]} == {TIME}
    assert {row["UserId"] for row in one.get_feedbacks(100)[0]} >= {viewer}

    found = one.get_recommend(viewer, n=3)
    assert len(found) == 3 and not {score.id for score in found} & set(seen)
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    assert [s.id for s in one.get_recommend(viewer, n=2, offset=1)] == [s.id for s in found[1:]]
    back = one.get_recommend(viewer, n=3, write_back_type="read", write_back_delay="10m")
    assert [s.id for s in back] == [s.id for s in found]
    assert [s.id for s in one.get_recommend(viewer, n=3, write_back_type="read")] == [
        s.id for s in found
    ]
    assert not {s.id for s in one.get_recommend(viewer, n=3)} & {s.id for s in found}
    with pytest.raises(GorseException) as bad:
        one.get_recommend(viewer, write_back_type="read", write_back_delay="ten")
    assert bad.value.message == 'time: invalid duration "ten"'
    session = one.session_recommend([{**row, "UserId": ""} for row in rows], n=2)
    assert [set(row) for row in session] == [{"Id", "Score"}] * 2
    alike = one.get_neighbors(seen[0], n=3)
    assert len(alike) == 3 and seen[0] not in {row["Id"] for row in alike}
    assert one.delete_feedback(viewer, seen[0]) == {"RowAffected": 1}
    assert seen[0] not in {row["ItemId"] for row in one.list_feedbacks("view", viewer)}
    assert called == public(Gorse) == public(AsyncGorse)


def test_pygorse_with_a_wrong_key(address):
    with pytest.raises(GorseException) as refused:
        Gorse(address[0], "wrong").get_users(1)
    assert (refused.value.status_code, refused.value.message) == (401, "unauthorized")


@pytest.fixture
def node():
    executable = shutil.which("node")
    if executable is None or not (NODE / "node_modules" / "gorsejs").is_dir():
        unavailable("no Node or no packages: install Node.js and run npm ci in tests/node")
    return executable


def test_gorsejs_every_call(node, tmp_path, Service, settings_for):
    database = Database(f"sqlite:///{tmp_path}/recsys.db")
    migrate.upgrade(database)
    settings = settings_for(tmp_path / "models", gorse=True)
    with closing(database), closing(Service(database, settings)) as service:
        with database.begin() as connection:
            key = key_rows.create_key(connection, "gorse", ["read", "write"], 1)
        server = make_server("127.0.0.1", 0, service.app)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            script = [node, str(NODE / "gorse_calls.mjs"), f"http://127.0.0.1:{server.port}", key]
            done = subprocess.run(script, capture_output=True, text=True, timeout=120)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert found["insertUser"] == found["updateUser"] == found["deleteUser"] == 1
    assert found["getUser"] == {"UserId": "100", "Labels": ["a", "b", "c"], "Comment": "comment"}
    assert found["getUpdatedUser"] == {"UserId": "101", "Labels": None, "Comment": "new"}
    assert [one["UserId"] for one in found["getUsers"]["Users"]] == ["100", "101"]
    assert [one["UserId"] for one in found["getMoreUsers"]["Users"]] == ["102"]
    assert found["getUserNeighbors"]["code"] == 404
    item = {
        "ItemId": "100",
        "IsHidden": True,
        "Labels": ["a", "b", "c"],
        "Categories": ["d", "e"],
        "Timestamp": TIME,
        "Comment": "comment",
    }
    assert found["getItem"] == item
    assert (found["upsertItem"], found["upsertItems"], found["insertUsers"]) == (1, 2, 2)
    assert [one["ItemId"] for one in found["getItems"]["Items"]] == ["100", "200", "300"]
    changed = {"IsHidden": False, "Categories": ["e", "f"], "Comment": "seen"}
    assert found["getUpdatedItem"] == {**item, **changed}
    assert found["insertFeedbacks"] == 3 and found["upsertFeedbacks"] == 1
    liked = {"FeedbackType": "like", "UserId": "100", "ItemId": "100", "Timestamp": TIME}
    liked |= {"Updated": TIME, "Value": 0.0, "Labels": None, "Comment": ""}
    assert found["getFeedback"] == liked
    assert [one["Value"] for one in found["getFeedbacks"]["Feedback"]] == [0.0, 2.0, 0.0]
    assert (
        len(found["getFeedbacksByType"]["Feedback"]) == 1 and found["getFeedbacksByType"]["Cursor"]
    )
    assert len(found["getUserFeedback"]) == 3 and len(found["getUserFeedbackByType"]) == 2
    assert found["getItemFeedback"] == [liked] and len(found["getItemFeedbackByType"]) == 1
    # What is popular was long before the days that are counted.
    assert found["getPopular"] == found["getPopularInCategory"] == []
    assert [one["Id"] for one in found["getLatest"]] == ["300", "200"]
    assert [one["Id"] for one in found["getLatestInCategory"]] == ["100"]
    assert found["getItemNeighbors"] == []
    assert found["getRecommend"] == ["300", "200", "100"]
    assert found["getRecommendInCategory"] == ["100"]
    assert (found["writeBack"], found["writeBackLater"]) == (["300"], ["200"])
    assert found["afterWriteBack"] == ["200", "100"]
    assert [one["Id"] for one in found["getSessionRecommend"]] == ["300", "200"]
    assert found["deleteFeedback"] == {"RowAffected": 1} and found["deleteItem"] == 1
    assert found["getDeletedItem"] == {"code": 404, "message": "item 100 not found"}
    assert found["getDeletedUser"] == {"code": 404, "message": "user 100 not found"}
    assert found["wrongKey"] == {"code": 401, "message": "unauthorized"}
    assert found["notCalled"] == []
