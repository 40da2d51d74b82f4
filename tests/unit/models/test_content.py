"""Vectors of items from their content: learned where it tells, kept only there, and used by a live view."""

import numpy as np
import pytest

from recsys.events.vocabulary import Vocabulary
from recsys.models import live_view
from recsys.models.content import (
    COLUMNS,
    ENOUGH_ITEMS,
    MAX_WORDS,
    NOTHING,
    ContentMap,
    ItemContent,
    content_columns,
    fit_content,
)
from recsys.models.live_log import LiveLog
from recsys.models.live_view import LiveView

WORDS = ("tea", "cup", "lamp", "rug", "desk")
WIDTH = 6


def said(title, categories=(), properties=None):
    """What is said of an item, without an encoder."""
    return ItemContent(content_columns(title, categories, properties or {}))


def shop(items: int, seed: int = 1, noise: float = 0.1):
    """Items of two words each, and vectors (n, D) that are the words' own vectors, added."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(len(WORDS), WIDTH)).astype(np.float32)
    chosen = np.stack([rng.permutation(len(WORDS))[:2] for _ in range(items)])
    contents = [said(" ".join(WORDS[w] for w in pair)) for pair in chosen]
    vectors = own[chosen].sum(axis=1) + noise * rng.normal(size=(items, WIDTH)).astype(np.float32)
    return contents, vectors.astype(np.float32), own


def fitted(contents, vectors, events=None):
    counts = np.full(len(contents), 20) if events is None else events
    return fit_content(contents, vectors, counts, np.random.default_rng(7))


def test_columns_are_those_of_words_categories_and_properties():
    found = content_columns("Red TEA", ["Food"], {"brand": "Acme", "sizes": ["S", "M"], "deep": {}})
    assert len(found) == 6 and (np.diff(found) > 0).all() and found.max() < COLUMNS
    for part in (
        content_columns("red, tea!", [], {}),
        content_columns(None, ["food"], {}),
        content_columns(None, [], {"brand": "acme", "sizes": ["m"]}),
    ):
        assert np.isin(part, found).all()
    # A word is another one as a category or as a property's value.
    assert len(content_columns("acme", ["acme"], {"brand": "acme", "shop": "acme"})) == 4
    assert len(content_columns(None, [], {})) == 0
    assert len(content_columns(" ".join(map(str, range(500))), [], {})) <= MAX_WORDS


def test_vectors_that_follow_words_are_found_again():
    contents, vectors, own = shop(400)
    content = fitted(contents, vectors)
    assert content is not None and content.explained > 0.9
    unseen = said("Desk tea")
    np.testing.assert_allclose(content.vectors([unseen])[0], own[0] + own[4], atol=0.2)
    assert not content.vectors([said("zebra"), NOTHING]).any()
    again = ContentMap.from_arrays(content.arrays())
    np.testing.assert_array_equal(again.vectors([unseen]), content.vectors([unseen]))
    with pytest.raises(ValueError, match="do not fit together"):
        ContentMap.from_arrays({**content.arrays(), "mean": np.zeros(WIDTH + 1, np.float32)})


def test_content_that_tells_nothing_gives_no_map():
    contents, vectors, _ = shop(400)
    rng = np.random.default_rng(3)
    assert fitted(contents, rng.normal(size=vectors.shape).astype(np.float32)) is None
    few = slice(ENOUGH_ITEMS - 1)
    assert fitted(contents[few], vectors[few]) is None
    assert fitted([NOTHING] * 400, vectors) is None
    assert fitted(contents, vectors, np.zeros(400, np.int64)) is None  # none was learned


def test_an_item_weighs_by_its_events():
    contents, vectors, _ = shop(400)
    wrong = np.arange(400) % 2 == 0
    shuffled = vectors.copy()
    shuffled[wrong] = np.random.default_rng(2).permutation(shuffled[wrong])
    trusting = fitted(contents, shuffled)
    weighing = fitted(contents, shuffled, np.where(wrong, 1, 1_000))
    assert weighing.explained > trusting.explained + 0.1


def view_of(content, width=WIDTH):
    known = Vocabulary([f"k{number}" for number in range(8)])
    table = np.random.default_rng(5).normal(size=(len(known), width)).astype(np.float32)
    view = LiveView(known, table, np.zeros(len(known), np.float32), 0, content)
    return view, known, table


def put(log, owner, *items):
    count = len(items)
    return log.append(
        [owner] * count, list(items), np.arange(count) + owner, np.full(count, owner, np.uint64)
    )


def test_a_view_ranks_items_that_nobody_has_clicked():
    contents, vectors, own = shop(400)
    view, known, table = view_of(fitted(contents, vectors))
    log = LiveLog(1_800, 1_000)
    view.catch_up(log)
    told = {"new": said("tea cup"), "k3": said("lamp rug")}
    view.describe(view.priors(told))
    assert list(view.new_ids) == ["new"]  # what the version knows keeps its own vector
    row = np.array([len(known)])
    prior = own[0] + own[1]
    np.testing.assert_allclose(view.vectors(row)[0], prior, atol=0.2)
    assert view.scores(prior, row)[0] == pytest.approx(view.vectors(row)[0] @ prior, rel=1e-4)
    # What stands beside it soon weighs more, in the row that it has.
    for owner in range(1, 60):
        log = put(log, owner, "k1", "new")
    view.catch_up(log)
    assert list(view.new_ids) == ["new"]
    beside = table[known.index("k1")]
    assert np.abs(view.vectors(row)[0] - beside).max() < 0.1
    # A log that is begun anew, and a catalogue that says something else.
    view.catch_up(LiveLog(1_800, 1_000))
    np.testing.assert_allclose(view.vectors(row)[0], prior, atol=0.2)
    view.describe(view.priors({"new": said("desk rug")}))
    np.testing.assert_allclose(view.vectors(row)[0], own[4] + own[3], atol=0.2)
    view.describe({})
    assert not view.vectors(row).any()
    assert view.scores(prior, row)[0] == np.float32(view.new_bias - live_view.NOTHING_KNOWN)


def test_rows_by_content_are_bounded(monkeypatch):
    monkeypatch.setattr(live_view, "DESCRIBED", 3)
    contents, vectors, _ = shop(400)
    view, known, _ = view_of(fitted(contents, vectors))
    log = put(LiveLog(1_800, 1_000), 1, "k1", "clicked")
    view.catch_up(log)
    tea = said("tea")
    for batch in range(12):
        view.describe(view.priors({f"{batch}-{n}": tea for n in range(5)}))
        view.catch_up(log)
        held = set(view.new_ids)
        assert {f"{batch}-{n}" for n in range(3)} | {"clicked"} <= held
        assert len(held) <= 2 * 3 + 1 + 3
        moment = view.moment((), -1, 1)
        rows = moment.vocabulary.new_rows(held)
        assert sorted(rows) == list(range(len(known), len(known) + len(held)))
    assert view.bytes > 0


def test_rows_are_found_from_either_side():
    view, known, _ = view_of(None)
    log = put(LiveLog(1_800, 1_000), 1, *(f"n{number}" for number in range(5)))
    view.catch_up(log)
    vocabulary = view.moment(["mine"], -1, 1).vocabulary
    first = len(known)
    assert vocabulary.new_rows({"n1", "k1", "zebra"}).tolist() == [first + 1]
    many = {f"n{number}" for number in range(9)} | {"mine"}
    assert sorted(vocabulary.new_rows(many)) == list(range(first, first + 6))
