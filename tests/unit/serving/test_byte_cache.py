"""What is kept between requests is bounded by bytes, whatever clients ask for."""

import string
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.events.sequences import Histories
from recsys.events.vocabulary import Vocabulary
from recsys.ingest.item_body import check_item
from recsys.serving.answer_log import MAX_WAITING_BYTES, Impressions
from recsys.serving.answers import Answer, Candidate, RankedItem, Request
from recsys.serving.byte_cache import ByteCache, bytes_of
from recsys.serving.filters import filters_of, filters_without_database
from recsys.serving.item_snapshot import ItemSnapshot
from recsys.serving.kept_answers import KeptAnswers, Place, _Key
from recsys.serving.version_ranking import _digest
from recsys.steering.scenario_spec import ScenarioSpec
from recsys.storage.entities import item_rows
from recsys.storage.entities.history_rows import History


@given(st.lists(st.tuples(st.text(string.ascii_letters, max_size=9), st.binary(max_size=900))))
def test_it_holds_the_newest_values_within_its_bound(steps):
    cache: ByteCache[str, bytes] = ByteCache(5_000)
    newest: dict[str, bytes] = {}
    for key, value in steps:
        cache.put(key, value)
        newest.pop(key, None)
        newest[key] = value
        assert 0 <= cache.bytes <= 5_000
    kept = [key for key in newest if key in cache]
    assert all(cache.get(key) == newest[key] for key in kept)
    assert kept == list(newest)[len(newest) - len(kept) :] or len(kept) == len(cache)


def test_what_was_used_last_stays_and_what_is_too_large_is_not_kept():
    cache: ByteCache[str, bytes] = ByteCache(4_000)
    for key in "abc":
        cache.put(key, bytes(700))
    assert cache.get("a") is not None
    cache.put("d", bytes(700))
    cache.put("e", bytes(700))
    assert "a" in cache and "b" not in cache
    cache.put("a", bytes(3_000))
    assert "a" not in cache and cache.bytes <= 4_000


def test_the_size_of_an_array_and_of_nested_values_is_counted():
    assert bytes_of(np.zeros(1_000)) >= 8_000
    assert bytes_of({"a": ["x" * 1_000, ("y" * 1_000,)]}) >= 2_000


def _bundle(item_ids):
    return SimpleNamespace(version="v", vocabulary=Vocabulary(item_ids), live=None)


def test_what_a_client_lists_is_never_kept():
    """The attack: each request lists 10,000 long ids of its own."""
    snapshot = ItemSnapshot(1, frozenset())
    bundle = _bundle([f"i{n}" for n in range(50)])
    before = sum(snapshot.cached_bytes().values())
    for number in range(20):
        listed = tuple(f"i{n}" if n < 50 else f"{number}-{n}-{'x' * 240}" for n in range(2_000))
        mask = filters_without_database(Request(candidates=listed), snapshot).mask(bundle)
        assert mask.allowed is not None and mask.allowed.sum() == 50
    grown = sum(snapshot.cached_bytes().values()) - before
    assert grown < 10_000  # the rows of hidden items, under one name


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_categories_are_kept_one_by_one_however_they_are_listed_together(database):
    items = [check_item({"item_id": f"i{n}", "categories": [f"c{n % 5}"]}) for n in range(50)]
    with database.begin() as connection:
        item_rows.put_items(connection, items, 1)
    snapshot, bundle = ItemSnapshot(1, frozenset()), _bundle([f"i{n}" for n in range(50)])
    source = SimpleNamespace()
    sizes = []
    with database.connect() as connection:
        for mixed in range(1, 32):
            wanted = frozenset(f"c{n}" for n in range(5) if mixed >> n & 1)
            request = Request(categories=wanted, exclude_seen="none")
            filters = filters_of(connection, request, History([], True), snapshot, source, 0)
            assert filters.mask(bundle).allowed.sum() == 10 * len(wanted)
            sizes.append(snapshot.cached_bytes()["filters"])
    assert sizes[-1] < 5 * 10_000 and sizes[-1] == sizes[15]


def test_a_history_is_known_by_a_digest_of_fixed_size():
    short, long = Histories.from_lists([[2, 3]]), Histories.from_lists([list(range(2, 2_000))])
    assert len(_digest("v", short)) == len(_digest("v", long)) == 16
    assert _digest("v", short) == _digest("v", Histories.from_lists([[2, 3]]))
    assert len({_digest("v", short), _digest("v", long), _digest("w", short)}) == 3
    parts = Histories.from_lists([[9, 9], [2, 3]]).batch(1, 2)
    assert _digest("v", parts) == _digest("v", short)


def test_answers_that_wait_are_bounded_by_bytes(monkeypatch):
    """With the database away, answers of a thousand long ids each would take gigabytes."""
    lost = []
    log = Impressions(SimpleNamespace(), 1.0, lost.append)
    monkeypatch.setattr(log, "_run", lambda: None)
    items = [RankedItem(f"{n}{'x' * 250}", n, 0.0, "popular", None) for n in range(1, 1_001)]
    for number in range(200):
        log.record(Answer(f"r{number}", None, "s", None, 1, 0, None, None, items=items))
    assert log.bytes <= MAX_WAITING_BYTES and lost
    assert len(log) == 200 - len(lost)


def test_kept_answers_count_what_a_request_names_and_not_the_rules_that_all_share():
    spec = ScenarioSpec(exclude_items=tuple(f"item {n}" for n in range(500)))

    def kept_bytes(**more):
        kept = KeptAnswers()
        request = Request(user_id="u", k=1, **more)
        place = Place(_Key("v", request, None, 1, "e", 1), ())
        kept.keep(place, [Candidate("a", 1.0, "lstm")])
        assert kept.find(place) is not None
        return kept.bytes

    plain = kept_bytes()
    assert kept_bytes(scenario="home", scenario_spec=spec) == plain
    assert kept_bytes(exclude_items=frozenset(spec.exclude_items)) > plain + 500 * 50
