"""The simulated shop: the same every time, order-dependent, and honest about its own odds."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys.demo.products import KINDS, NOUNS
from recsys.demo.simulation import Shop, ShopSize
from recsys.events.fields import EVENT_SCHEMA
from recsys.events.frame import frame_from_table
from recsys.events.sequences import Histories, build_sequences
from recsys.events.time_split import positions_from
from recsys.events.vocabulary import Vocabulary

END_US = 1_740_000_000_000_000
SIZE = ShopSize(products=200, shoppers=1_500, events=30_000)


@pytest.fixture(scope="module")
def shop():
    return Shop(SIZE, 5, END_US)


@pytest.fixture(scope="module")
def log(shop):
    return pa.concat_tables(shop.events())


@pytest.fixture(scope="module")
def views(shop, log):
    chosen = log.filter(pc.equal(log["event_type"], "view"))
    vocabulary = Vocabulary([item.item_id for item in shop.items])
    frame = frame_from_table(chosen)
    return build_sequences(frame, 1e12).recode(vocabulary.encode(frame.item_ids)), vocabulary


def test_same_seed_same_log_whatever_the_chunks(shop, log):
    again = pa.concat_tables(Shop(SIZE, 5, END_US).events(chunk_events=777))
    assert again.equals(log)
    assert not pa.concat_tables(Shop(SIZE, 6, END_US).events()).equals(log)


def test_the_log_is_what_was_ordered(shop, log):
    assert log.schema == EVENT_SCHEMA
    assert abs(log.num_rows / SIZE.events - 1) < 0.1
    assert log["user_id"].null_count == log["item_id"].null_count == 0
    assert pc.min(log["timestamp_us"]).as_py() >= shop.start_us
    assert pc.max(log["timestamp_us"]).as_py() < END_US
    kinds = dict(
        zip(
            *[column.to_pylist() for column in log["event_type"].value_counts().flatten()],
            strict=True,
        )
    )
    assert 0.06 < kinds["cart"] / kinds["view"] < 0.10
    assert 0.25 < kinds["purchase"] / kinds["cart"] < 0.45
    assert len({item.item_id for item in shop.items}) == SIZE.products
    assert all(item.title and item.price and item.categories for item in shop.items)


def test_the_log_spans_its_days_and_popularity_drifts(shop, log):
    days = (log["timestamp_us"].to_numpy() - shop.start_us) // (86_400 * 10**6)
    counts = np.bincount(days, minlength=42)
    assert (counts[1:40] > 0.3 * counts.mean()).all()
    first, last = shop.popularity[0], shop.popularity[-1]
    assert 0.1 < np.abs(first - last).sum() / 2 < 0.9
    assert (first == 0).sum() > 0.02 * SIZE.products  # late arrivals


def test_a_view_is_never_of_the_item_just_seen(views):
    sequences, _ = views
    same = sequences.items[1:] == sequences.items[:-1]
    within = sequences.owners()[1:] == sequences.owners()[:-1]
    assert not (same & within).any()


def test_the_oracle_gives_probabilities(shop, views):
    sequences, vocabulary = views
    positions = positions_from(sequences, 0)
    scores = shop.oracle_scores(positions.histories.batch(0, 200), vocabulary)
    assert np.isneginf(scores[:, :2]).all()
    np.testing.assert_allclose(scores[:, 2:].sum(axis=1), 1.0, atol=1e-4)
    current = [positions.histories[n][-1] for n in range(200)]
    assert (scores[np.arange(200), current] == 0).all()


def test_the_oracle_is_calibrated(shop, views):
    """Of all (position, item) pairs it gives odds p, a share of p comes true."""
    sequences, vocabulary = views
    positions = positions_from(sequences, 0).sample(4_000, np.random.default_rng(0))
    expected, happened = np.zeros(6), np.zeros(6)
    edges = np.array([0.001, 0.01, 0.05, 0.15, 0.3])
    for at in range(0, len(positions), 200):
        histories = positions.histories.batch(at, at + 200)
        scores = shop.oracle_scores(histories, vocabulary)[:, 2:]
        bins = np.digitize(scores, edges)
        targets = positions.targets[at : at + 200] - 2
        expected += np.bincount(bins.ravel(), scores.ravel(), minlength=6)
        happened += np.bincount(bins[np.arange(len(targets)), targets], minlength=6)
    spread = np.sqrt(expected) * 3 + 3
    # When a next session starts, popularity has moved on: items of no odds now come up then.
    spread[0] += 0.03 * len(positions)
    assert (np.abs(happened - expected) < spread).all(), (happened, expected)


def test_the_next_click_depends_on_the_item_before_the_last(shop):
    vocabulary = Vocabulary([item.item_id for item in shop.items])
    styles = shop.catalogue.styles
    one, other = 0, int(np.flatnonzero(styles != styles[0])[0])
    last = (
        int(np.flatnonzero((styles != styles[one]) & (styles != styles[other]))[0])
        if (shop.catalogue.style_count > 2)
        else 7
    )
    histories = Histories.from_lists([[one + 2, last + 2], [other + 2, last + 2]])
    scores = shop.oracle_scores(histories, vocabulary)[:, 2:]
    assert 0.5 * np.abs(scores[0] - scores[1]).sum() > 0.3
    by_style = [np.bincount(styles, row, minlength=shop.catalogue.style_count) for row in scores]
    assert by_style[0].argmax() == styles[one]
    assert by_style[1].argmax() == styles[other]


def test_kinds_follow_sense(shop):
    whole = Shop(ShopSize(), 7, END_US)
    kinds = [NOUNS[category] for category in whole.grammar[NOUNS.index("Teapot")]]
    assert kinds == ["Mug", "Kettle", "Tea Towel"]
    assert {one for kind in KINDS.values() for one in kind.next_kinds} <= KINDS.keys()
    large = Shop(ShopSize(products=2_600, shoppers=10, events=300), 7, END_US)
    for one in (whole, shop, large):  # all kinds, a few of them, and a second series of some
        ordered = np.sort(one.grammar, axis=1)
        assert (ordered[:, :-1] < ordered[:, 1:]).all()
        assert ordered.min() >= 0 and ordered.max() < one.catalogue.category_count
    titles = [item.title for item in large.items]
    assert len(set(titles)) == len(titles)


def test_a_tiny_shop_works():
    tiny = Shop(ShopSize(products=30, shoppers=10, events=300), 1, END_US)
    assert sum(table.num_rows for table in tiny.events()) > 100
