"""Live quality: a finished hour's positions ranked as they were served, over both databases."""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from jobs import refresh
from jobs.run_log import RunLog
from recsys.config import Settings
from recsys.errors import StorageUnavailableError
from recsys.events.fields import Event
from recsys.events.times import DAY_US, HOUR_US, rfc3339, to_us
from recsys.events.vocabulary import UNKNOWN
from recsys.ingest.item_body import check_item
from recsys.models import live_view
from recsys.models.live_log import BEGINS_US_BEFORE, LiveLog
from recsys.models.live_view import LiveView
from recsys.models.ranking import best, encode_history
from recsys.ops import upkeep
from recsys.storage.entities import (
    erasure_rows,
    event_rows,
    item_rows,
    job_rows,
    live_quality_rows,
    user_rows,
    version_rows,
)
from recsys.storage.entities.live_quality_rows import LiveQuality
from recsys.storage.events_source import open_events_source
from recsys.training import live_quality
from recsys.training.replay import MISSED, K, delay_of
from recsys.web.services import now_us

DATA_END = datetime(2025, 3, 1, tzinfo=UTC)
DATA_END_US = to_us(DATA_END)
HOUR = DATA_END + timedelta(hours=3)
HOUR_START_US = to_us(HOUR)
NOW = HOUR + timedelta(hours=1, minutes=6)
STEP_US = 600 * 10**6  # as popular items are counted
MERGED = {"s:visit 5": "u:new 4", "u:new 10": "u:new 4"}
ERASED = "new 7"


def anonymous(user):
    """Whether a user of the version's data is known by sessions alone here."""
    return user.endswith("3")


def made(shop, seed=5, visitors=90):
    """The version's own events, then visitors of the four hours after: users and sessions that were
    there before, and new ones. A third of what they look at is new.
    """
    rng = np.random.default_rng(seed)
    names = [item.item_id for item in shop.shop.items]
    events, before = [], []
    for number, row in enumerate(shop.events.sort_by("timestamp_us").to_pylist()):
        user, session = row["user_id"], row["session_id"]
        if anonymous(user):
            user, session = None, f"of {user}"
        events.append(
            Event(
                user, session, row["item_id"], row["event_type"], row["timestamp_us"], f"o{number}"
            )
        )
        before.append((user, session) if user is None else (user, None))
    before = sorted(set(before), key=str)
    for number in range(visitors):
        kind = number % 3
        if kind == 0:
            user, visit = before[int(rng.integers(len(before)))]
        else:
            user = f"new {number}" if kind == 1 else None
            visit = f"visit {number}" if user is None or number % 2 else None
        at_us = DATA_END_US + int(rng.integers(0, 4 * HOUR_US))
        place = int(rng.integers(len(names)))
        for _ in range(int(rng.integers(1, 9))):
            at_us += int(rng.integers(1, 4 * 60 * 10**6))
            place = (place + int(rng.integers(1, 4))) % len(names)
            item = f"new item {place % 5}" if place % 3 == 0 else names[place]
            events.append(Event(user, visit, item, "view", at_us, f"e{len(events)}"))
    return sorted(events, key=lambda event: event.timestamp_us)


def key_of(event):
    return f"u:{event.user_id}" if event.user_id else f"s:{event.session_id}"


def owner_of(event):
    return MERGED.get(key_of(event), key_of(event))


def by_hand(bundle, settings, events):
    """The hour's sums from the log read whole: each position by itself, from what was known then."""
    counted = [e for e in events if e.user_id != ERASED]
    types = {*settings.sequences.input_event_types, *settings.sequences.target_event_types}
    events = [e for e in counted if e.event_type in types]
    owners = {key: number for number, key in enumerate(dict.fromkeys(map(owner_of, events)))}
    ranks, unknown = [], 0
    for at, event in enumerate(events):
        now_us = event.timestamp_us
        mine = [e for e in events[:at] if owner_of(e) == owner_of(event)][-bundle.max_length :]
        if not HOUR_START_US <= now_us < HOUR_START_US + HOUR_US or not mine:
            continue
        live, known_us = LiveLog(bundle.session_gap_seconds, 100_000), now_us - delay_of(settings)
        sessions = {None: 0}
        for e in events:
            if DATA_END_US - BEGINS_US_BEFORE < e.timestamp_us <= known_us:
                session = sessions.setdefault(e.session_id, len(sessions))
                session = np.array([session], np.uint64)
                time_us = np.array([e.timestamp_us])
                live = live.append([owners[owner_of(e)]], [e.item_id], time_us, session)
        view = LiveView.of(bundle, DATA_END_US)
        view.catch_up(live)
        moment = view.moment([e.item_id for e in mine], live.owner(owners[owner_of(event)]), now_us)
        served = bundle.with_live(moment)
        recent = np.zeros(len(moment.vocabulary), np.float32)
        for item, count in popular(counted, known_us // STEP_US * STEP_US).items():
            row = moment.vocabulary.index(item)
            if UNKNOWN < row < len(moment.vocabulary.shared):
                recent[row] = np.log1p(count)
        columns = [(e.item_id, e.event_type, e.timestamp_us, e.session_id) for e in mine]
        columns = list(zip(*columns, strict=True))
        history, still = encode_history(served, *columns), encode_history(bundle, *columns)
        rows = np.flatnonzero(recent)
        rows = rows[served.repeats.allows(rows, history[0])]
        target, old = moment.vocabulary.index(event.item_id), bundle.vocabulary.index(event.item_id)
        unknown += old == UNKNOWN
        ranks.append(
            (
                rank(best(served, history, 2 * K, recent), target),
                rank(best(bundle, still, 2 * K), old),
                rank([(int(row), recent[row]) for row in rows], target),
            )
        )
    return summed(ranks, unknown)


def popular(events, until_us):
    """Users and sessions of each item in the week before."""
    inside = [e for e in events if until_us - 7 * DAY_US <= e.timestamp_us < until_us]
    return Counter(item for item, _ in {(e.item_id, key_of(e)) for e in inside})


def rank(ranked, target):
    scores = {row: score for row, score, *_ in ranked}
    if target == UNKNOWN or scores.get(target, 0) <= 0:
        return MISSED
    found = sum(score >= scores[target] for score in scores.values())
    return found if found <= K else MISSED


def summed(ranks, unknown):
    sums = []
    for of_system in zip(*ranks, strict=True):
        hits = [rank for rank in of_system if rank <= K]
        sums += [len(hits), sum(1 / rank for rank in hits)]
    return LiveQuality(HOUR_START_US, len(ranks), unknown, *sums)


def equal(found, wanted):
    return vars(found) == pytest.approx(vars(wanted))


def merge_and_erase(database):
    with database.begin() as connection:
        for other, user in MERGED.items():
            user_rows.merge(connection, user[2:], other, 1)
        erasure_rows.erase(connection, ERASED, 1)


@pytest.fixture(autouse=True)
def counted_at_each_position(monkeypatch):
    """What is trending is kept for no time, as by hand."""
    monkeypatch.setattr(live_view, "KEPT_SHARE", 0.0)


@pytest.fixture(scope="session")
def judged(live_shop):
    """(events, the sums of the hour by hand)."""
    events = made(live_shop)
    return events, by_hand(live_shop.bundle, live_shop.settings, events)


@pytest.fixture
def settings(live_shop, tmp_path):
    base = live_shop.settings.model_dump(exclude={"registry"})
    return Settings.model_validate({**base, "registry": {"path": tmp_path / "models"}})


@pytest.fixture
def filled(live_shop, publish, database, settings, judged):
    """A database with the events and the version that serves."""
    publish(live_shop, database, settings.registry.path)
    put(database, judged[0])
    merge_and_erase(database)
    return database


def put(database, events):
    with database.begin() as connection:
        event_rows.insert_events(connection, events, to_us(NOW))


def measure(settings, database, now=NOW):
    """Measure once, and read all hours there are."""
    said = []
    upkeep.measure_live_quality(settings, database, now, said.append)
    with database.connect() as connection:
        return live_quality_rows.hours_between(connection, 0, to_us(now)), said


def test_an_hour_is_ranked_as_it_was_served(filled, settings, judged):
    ((found,), said) = measure(settings, filled)
    assert equal(found, judged[1]) and said == []
    assert found.positions > 50 and found.unknown > 5
    assert found.live_hits > found.popular_hits > found.still_hits > 0


def test_the_refresh_job_ranks_an_hour(filled, settings, judged, monkeypatch):
    class Then(datetime):
        @classmethod
        def now(cls, zone):
            return NOW

    monkeypatch.setattr(refresh, "datetime", Then)
    with filled.begin() as connection:
        run_id = job_rows.request_run(connection, "refresh", "cli", to_us(NOW))
    outcome = refresh.run(settings, filled, RunLog(filled, run_id))
    assert outcome.positions_ranked == judged[1].positions
    assert outcome.to_json()["positions_ranked"] == judged[1].positions


def test_every_hour_of_a_day_has_its_turn_the_newest_first(filled, settings):
    hours = [found[0] for found in (measure(settings, filled) for _ in range(4))]
    starts = [[one.hour_us for one in found] for found in hours]
    wanted = [HOUR_START_US - back * HOUR_US for back in (3, 2, 1, 0)]
    assert starts == [wanted[-count:] for count in (1, 2, 3, 4)]
    for _ in range(30):  # those before the day are nobody's
        found, _ = measure(settings, filled)
    assert len(found) == 23 and found[-1].positions and not found[0].positions
    early = HOUR + timedelta(hours=2, minutes=4)  # the hour is not settled yet
    assert measure(settings, filled, early)[0][-1].hour_us == HOUR_START_US


def test_a_sample_is_bounded_in_positions_and_by_owner(filled, settings, judged, monkeypatch):
    flood = [
        Event("robot", None, f"new item {at % 2}", "view", HOUR_START_US + at * 10**6, f"f{at}")
        for at in range(300)
    ]
    put(filled, flood)
    ((found,), _) = measure(settings, filled)
    robot = live_quality.OWNER_POSITIONS
    assert (
        found.positions == judged[1].positions + robot
        and found.unknown == judged[1].unknown + robot
    )
    monkeypatch.setattr(live_quality, "POSITIONS", 12)
    with closing(open_events_source(settings, filled)) as source:
        some = live_quality.rank_hour(settings, filled, source, HOUR_START_US, to_us(NOW))
    assert 5 < some.positions <= 12 + robot


def test_what_a_page_posts_of_no_item_counts_for_nothing(filled, settings, live_shop, judged):
    names = {event.item_id for event in judged[0]}
    with filled.begin() as connection:
        items = [check_item({"item_id": name, "title": name}) for name in names]
        item_rows.put_items(connection, items, 1)
    junk = [
        Event(None, f"visit {at % 30}", f"junk {at}", "view", HOUR_START_US + at * 10**7, f"j{at}")
        for at in range(200)
        if at % 30 != 5  # whose session is a user's
    ]
    put(filled, junk)
    ((found,), _) = measure(settings, filled)
    assert (found.positions, found.unknown) == (judged[1].positions, judged[1].unknown)


def test_each_champion_answers_for_its_time(filled, settings, live_shop, publish, judged):
    half_us = HOUR_START_US + HOUR_US // 2
    second = replace(live_shop, bundle=replace(live_shop.bundle, ranking="popular", blends={}))
    publish(second, filled, settings.registry.path, "20250302-000000-abcdef")
    with filled.begin() as connection:
        connection.exec_driver_sql("DELETE FROM deployments")
        version_rows.deploy(connection, live_shop.bundle.version, DATA_END_US, "test", "")
        version_rows.deploy(connection, "20250302-000000-abcdef", half_us, "test", "")
    ((found,), said) = measure(settings, filled)
    assert said == [] and found.positions == judged[1].positions
    assert 0 < found.live_hits < judged[1].live_hits  # half of it by what is popular
    with filled.begin() as connection:
        connection.exec_driver_sql("DELETE FROM live_quality")
    (settings.registry.path / "20250302-000000-abcdef" / "manifest.json").unlink()
    ((less,), said) = measure(settings, filled)
    assert 0 < less.positions < found.positions
    assert len(said) == 1 and "20250302-000000-abcdef is left out" in said[0]


def test_what_a_version_has_learned_is_not_asked_of_it(
    filled, settings, live_shop, publish, judged
):
    middle_us = HOUR_START_US + HOUR_US // 2
    facts = replace(live_shop.bundle.facts, data_end_us=middle_us)
    publish(
        replace(live_shop, bundle=replace(live_shop.bundle, facts=facts)),
        filled,
        settings.registry.path,
        "20250302-000000-abcdef",
    )
    ((found,), _) = measure(settings, filled)
    assert 0 < found.positions < judged[1].positions


def test_without_a_live_log_what_is_served_stands_still(filled, settings, judged):
    off = settings.model_copy(
        update={"serving": settings.serving.model_copy(update={"live_seconds": 0})}
    )
    ((found,), _) = measure(off, filled)
    assert (found.live_hits, found.live_reciprocals) == (found.still_hits, found.still_reciprocals)
    assert found.still_hits == judged[1].still_hits


def test_ranking_ends_in_time(filled, settings):
    ticks = iter([0.0, *[1.0] * 7, *[live_quality.SECONDS + 1] * 9])
    said = []
    with closing(open_events_source(settings, filled)) as source:
        found = live_quality.rank_hour(
            settings, filled, source, HOUR_START_US, to_us(NOW), said.append, lambda: next(ticks)
        )
    assert found.positions == 7 and "7 positions in 60 s" in said[0]


def test_without_a_version_or_events_an_hour_has_no_positions(
    database, settings, publish, live_shop
):
    ((found,), said) = measure(settings, database)
    assert found == LiveQuality(HOUR_START_US) and said == []
    publish(live_shop, database, settings.registry.path)
    (found, _) = measure(settings, database)
    assert [one.positions for one in found] == [0, 0]


def test_an_hour_is_left_to_the_next_time_where_the_database_fails(filled, settings, monkeypatch):
    def away(*arguments):
        raise StorageUnavailableError("away")

    monkeypatch.setattr(live_quality, "read_log", away)
    with pytest.raises(StorageUnavailableError):
        measure(settings, filled)
    monkeypatch.undo()
    assert len(measure(settings, filled)[0]) == 1


def test_a_report_tells_it_by_hour(service):
    nothing = service.get("/reports/live-quality")
    assert nothing["positions"] == 0 and nothing["live"] == {
        "recall_at_20": None,
        "mrr_at_20": None,
    }
    assert nothing["unknown_share"] is None and nothing["by_hour"] == []
    hour_us = now_us() // HOUR_US * HOUR_US
    with service.database.begin() as connection:
        for back, hits in ((1, 60), (2, 40), (26, 99)):
            at_us = hour_us - back * HOUR_US
            found = LiveQuality(at_us, 100, 20, hits, hits / 2, 30, 9.0, 10, 5.0)
            live_quality_rows.put_hour(connection, found)
    report = service.get("/reports/live-quality", scope="read")
    assert (report["positions"], report["unknown_share"]) == (200, 0.2)
    assert report["live"] == {"recall_at_20": 0.5, "mrr_at_20": 0.25}
    assert report["still"] == {"recall_at_20": 0.3, "mrr_at_20": 0.09}
    assert report["popular"] == {"recall_at_20": 0.1, "mrr_at_20": 0.05}
    hours = [one["hour"] for one in report["by_hour"]]
    assert hours == [rfc3339(hour_us - back * HOUR_US) for back in (2, 1)]
    assert report["by_hour"][1]["live"]["recall_at_20"] == 0.6
    assert service.get("/reports/live-quality?hours=48")["positions"] == 300
    service.get("/reports/live-quality?hours=0", status=422)
    service.get("/reports/live-quality", scope="collect", status=403)
