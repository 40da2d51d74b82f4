"""Items, versions, keys and runs as rows."""

import hashlib
import json
import secrets
import threading
from dataclasses import replace

import pytest

from recsys.errors import ConflictError, InputError, NotFoundError
from recsys.ingest.event_body import check_event
from recsys.ingest.item_body import check_item
from recsys.ingest.raw_rows import Rejection
from recsys.storage.entities import (
    event_rows,
    impression_rows,
    item_rows,
    job_rows,
    key_rows,
    rejected_rows,
    user_rows,
    version_rows,
)
from recsys.storage.entities.impression_rows import Impression


def test_items_are_stored_whole_and_changed_in_part(database):
    tea = check_item({"item_id": "a/b", "title": "Tea", "categories": ["drinks", "hot"]})
    with database.begin() as connection:
        assert item_rows.put_items(connection, [tea], 1) == 1
        assert item_rows.put_items(connection, [tea], 2) == 0
        assert item_rows.items_in(connection, ["hot"]) == {"a/b"}
        changes = {"available": False, "categories": ("cold",)}
        assert item_rows.update_item(connection, "a/b", changes, 3)
        assert not item_rows.update_item(connection, "nothing", {"available": True}, 3)
    with database.connect() as connection:
        stored = item_rows.get_items(connection, ["a/b", "x"])["a/b"]
        assert (stored.title, stored.categories, stored.available) == ("Tea", ["cold"], False)
        assert item_rows.unavailable_items(connection) == {"a/b"}
        assert item_rows.items_in(connection, ["hot"]) == set()
        assert item_rows.latest_items(connection, 5) == []
    with database.begin() as connection:
        assert item_rows.delete_item(connection, "a/b")
        assert item_rows.items_in(connection, ["cold"]) == set()


def test_an_answer_of_someone_erased_meanwhile_is_not_stored(database):
    def answer(name, user, session):
        return Impression(name, 1, user, session, "v", None, None, (("a", "lstm", 0.5),))

    answers = [answer("r1", "gone", "s1"), answer("r2", "here", "s1"), answer("r3", None, None)]
    with database.begin() as connection:
        user_rows.erase(connection, "gone", 1)
    with database.begin() as connection:
        left = user_rows.without_erased(connection, answers)
        assert [one.recommendation_id for one in left] == ["r2", "r3"]


@pytest.mark.parametrize("query", ["50%", "a_b", "\\", "'; DROP TABLE items; --"])
def test_search_takes_its_text_literally(database, query):
    rows = [check_item({"item_id": str(n), "title": t}) for n, t in enumerate([query, "other"])]
    with database.begin() as connection:
        item_rows.put_items(connection, rows, 1)
        assert [i.item_id for i in item_rows.list_items(connection, query, None, 10)] == ["0"]


def test_champion_promotion_and_roll_back(database, version_row):
    with database.begin() as connection:
        assert version_rows.champion(connection) is None
        for name in ("v1", "v2", "v3"):
            version_rows.add_version(connection, version_row(name, verdict={"reason": "é"}))
            version_rows.deploy(connection, name, 1, "test", "because")
        assert version_rows.champion_name(connection) == ("v3", "0" * 64)
        assert version_rows.roll_back(connection, 2, "test", "worse") == "v2"
        assert version_rows.roll_back(connection, 3, "test", "worse still") == "v1"
        assert version_rows.champion(connection).verdict == {"reason": "é"}
        with pytest.raises(ConflictError):
            version_rows.roll_back(connection, 4, "test", "nothing left")
        with pytest.raises(NotFoundError):
            version_rows.deploy(connection, "v9", 5, "test", "no such version")
        version_rows.set_state(connection, "v2", "deleted")
        with pytest.raises(ConflictError):
            version_rows.deploy(connection, "v2", 5, "test", "deleted")


def test_a_key_opens_until_it_is_revoked_and_its_secret_is_not_stored(database, monkeypatch):
    compared, compare = [], secrets.compare_digest
    monkeypatch.setattr(
        secrets, "compare_digest", lambda *two: compared.append(two) or compare(*two)
    )
    with database.begin() as connection:
        key = key_rows.create_key(connection, "shop", ["read", "write"], 1)
        found = key_rows.find_key(connection, key)
        assert found.scopes == {"read", "write"}
        assert key_rows.find_key(connection, key[:-1] + ("a" if key[-1] != "a" else "b")) is None
        assert key_rows.find_key(connection, "nonsense") is None
        stored = connection.exec_driver_sql("SELECT * FROM api_keys").one()
        secret = key.split("_", 2)[2]
        digest = hashlib.sha256(secret.encode()).hexdigest()
        assert len(secret) == 43  # 256 bits
        assert secret not in str(stored)
        assert stored.secret_sha256 == digest
        assert compared[0] == (digest, digest)  # in constant time: a right one,
        assert compared[1][1] == digest != compared[1][0]  # a wrong one,
        key_rows.find_key(connection, key.replace(found.key_id, "0" * 12))
        assert compared[2] == (digest, "0" * 64)  # and one whose id is not known
        key_rows.revoke_key(connection, found.key_id, 2)
        assert key_rows.find_key(connection, key) is None
        with pytest.raises(NotFoundError):
            key_rows.revoke_key(connection, found.key_id, 3)
        with pytest.raises(InputError, match="scopes"):
            key_rows.create_key(connection, "x", ["root"], 1)


def test_a_slot_is_claimed_once_and_a_job_never_waits_twice(database):
    with database.begin() as connection:
        first = job_rows.claim_slot(connection, "retrain", 60, 61)
        assert first is not None
        assert job_rows.claim_slot(connection, "retrain", 60, 62) is None
        with pytest.raises(ConflictError, match=f"run {first}"):
            job_rows.request_run(connection, "retrain", "cli", 63)
        other = job_rows.request_run(connection, "prune", "cli", 63)
        assert job_rows.start_run(connection, other, 1, "here", 64)
        assert not job_rows.start_run(connection, other, 2, "there", 64)
        assert job_rows.beat(connection, other, 65, "events", 0.5) is False
        assert job_rows.cancel_run(connection, other, 66) == "running"
        assert job_rows.beat(connection, other, 67) is True
        assert job_rows.finish_run(connection, other, "cancelled", 68)
        assert not job_rows.finish_run(connection, other, "succeeded", 69)
        assert job_rows.cancel_run(connection, first, 70) == "cancelled"
        with pytest.raises(ConflictError, match="already ended"):
            job_rows.cancel_run(connection, first, 71)
        with pytest.raises(NotFoundError):
            job_rows.get_run(connection, 999)
        job_rows.add_line(connection, other, "x" * 5_000, 1)
        assert len(job_rows.get_lines(connection, other)[0]["message"]) == 1_000


def an_answer():
    return Impression(
        recommendation_id="r1",
        created_at_us=1,
        user_id="u",
        session_id=None,
        model_version="v",
        arm="champion",
        scenario=None,
        items=(("a", "lstm", 0.5), ("b", "popular", 0.1)),
    )


def test_an_answer_that_is_stored_twice_counts_once(database):
    """As when two threads write what waits, or a commit's answer was lost."""
    answer = an_answer()
    other = replace(answer, recommendation_id="r2")
    for given in ([answer], [answer, other]):
        with database.begin() as connection:
            impression_rows.insert_impressions(connection, given)
    with database.connect() as connection:
        (row,) = impression_rows.counts(connection, 0, 10**12, ("arm",))
    assert row["shown"] == 2


def test_an_erasure_reads_of_the_quarantine_only_what_came_since_its_scan(database, monkeypatch):
    def reject(*users):
        with database.begin() as connection:
            rows = [Rejection(n, "bad", json.dumps({"user": user})) for n, user in enumerate(users)]
            rejected_rows.add_rejections(connection, f"of {users}", rows, 1)

    read = []
    values = user_rows._values
    monkeypatch.setattr(user_rows, "_values", lambda raw: read.append(raw) or values(raw))
    reject("u", "other", "u2")
    with database.begin() as connection:
        user_rows.merge(connection, "u", "u:u2", 1)
        until = user_rows.settled_quarantine(connection)
        scan = user_rows.scan_quarantine(connection, "u", until)
    assert len(read) == 3
    reject("u")
    with database.begin() as connection:
        assert user_rows.erase(connection, "u", 2, scan)["quarantine"] == 3
        assert len(read) == 4
        (left,) = rejected_rows.list_rejected(connection)
    assert json.loads(left["raw"]) == {"user": "other"}


def test_an_erasure_after_a_merge_reads_the_quarantine_anew(database):
    with database.begin() as connection:
        rows = [Rejection(0, "bad", '{"user": "u2"}')]
        rejected_rows.add_rejections(connection, "file", rows, 1)
        scan = user_rows.scan_quarantine(connection, "u", 10)
        user_rows.merge(connection, "u", "u:u2", 1)
        assert user_rows.erase(connection, "u", 2, scan)["quarantine"] == 1


def waiting(ask):
    """A thread that asks, and the list that its answer comes into."""
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    return thread, found


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_scan_of_the_quarantine_waits_for_rows_under_way(database):
    def settled():
        with database.begin() as connection:
            return user_rows.settled_quarantine(connection)

    with database.begin() as connection:
        rejected_rows.add_rejections(connection, "file", [Rejection(0, "bad", "{}")], 1)
        thread, found = waiting(settled)
    thread.join(30)
    assert found == [1]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_erasure_beside_a_merge_takes_what_was_merged(database):
    def erase():
        with database.begin() as connection:
            return user_rows.erase(connection, "u", 2)

    with database.begin() as connection:
        one = check_event({"session_id": "s", "item_id": "i1"}, 10**15)
        event_rows.insert_events(connection, [one], 1)
    with database.begin() as connection:
        user_rows.merge(connection, "u", "s:s", 1)
        thread, found = waiting(erase)
    thread.join(30)
    assert (found[0]["events"], found[0]["aliases"]) == (1, 1)
    with database.connect() as connection:
        assert event_rows.history(connection, "u", limit=10).events == []


def test_clicks_are_attributed_after_the_clock_was_ahead_for_a_while(database):
    minute, day = 60 * 10**6, 24 * 3_600 * 10**6
    now = 100 * day

    def attribute(at_us):
        with database.begin() as connection:
            impression_rows.attribute_clicks(connection, at_us, 10 * minute, 100)

    def click(number, at_us):
        given = {"item_id": "a", "recommendation_id": f"r{number}", "user_id": "u"}
        one = check_event(given, at_us)
        answer = replace(an_answer(), recommendation_id=f"r{number}")
        with database.begin() as connection:
            impression_rows.insert_impressions(connection, [answer])
            event_rows.insert_events(connection, [one], at_us)

    click(1, now)
    attribute(now + day)
    click(2, now + 30 * minute)
    attribute(now + 31 * minute)
    click(3, now + 2 * day)
    attribute(now + 2 * day)
    with database.connect() as connection:
        assert all(impression_rows.clicks_of(connection, f"r{number}") for number in (1, 2, 3))
