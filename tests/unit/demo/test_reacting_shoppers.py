"""Shoppers who react: odds of the shop itself, and reactions as often as is said of them."""

import numpy as np
import pytest

from recsys.demo.reacting_shoppers import ReactingShoppers, examination
from recsys.demo.simulation import SESSION_END, Shop, ShopSize

SHOP = Shop(ShopSize(products=200, shoppers=10, events=1_000), 5, 1_740_000_000_000_000)
K = 6


@pytest.fixture
def shoppers():
    made = ReactingShoppers(SHOP, 40, 3)
    everyone = np.arange(40)
    for _ in range(5):
        made.wander(everyone)
    return made


def test_odds_are_the_shops_own(shoppers):
    everyone, every = np.arange(40), np.tile(np.arange(200), (40, 1))
    found = shoppers.odds(everyone, every)
    for who in everyone:
        session = shoppers.memory[who][shoppers.memory[who] >= 0][::-1]
        expected = (1 - SESSION_END) * SHOP.within(session, shoppers.phase)
        expected += SESSION_END * SHOP.first_of_session(int(session[-1]), shoppers.phase)
        np.testing.assert_allclose(found[who], expected, atol=1e-12)
    lengths = (shoppers.memory >= 0).sum(axis=1)
    assert lengths.min() == 1 and lengths.max() > 4  # short sessions and long ones were compared

    shoppers.leave(everyone)
    back = shoppers.odds(everyone, every)
    expected = [SHOP.first_of_session(last, shoppers.phase) for last in shoppers.last.tolist()]
    np.testing.assert_allclose(back, expected, atol=1e-12)
    fresh = ReactingShoppers(SHOP, 1, 3).odds(np.array([0]), every[:1])
    np.testing.assert_allclose(fresh[0], SHOP.popularity[-1], atol=1e-12)


def test_what_is_expected_is_what_happens_on_average(shoppers):
    lists = np.tile(np.argsort(-shoppers.odds(np.array([7]), np.arange(200)[None]))[:, :K], (1, 1))
    crowd = ReactingShoppers(SHOP, 40_000, 11)
    crowd.memory[:], crowd.last[:] = shoppers.memory[7], shoppers.last[7]
    crowd.shown[:, lists[0, 2]] = 2
    everyone, shown = np.arange(40_000), np.repeat(lists, 40_000, axis=0)
    expected = crowd.expected(everyone, shown)
    happened = crowd.react(everyone, shown)
    for name in ("clicks", "purchases", "value"):
        drawn, truth = getattr(happened, name), getattr(expected, name)[0]
        error = drawn.std(axis=0) / 200
        assert (np.abs(drawn.mean(axis=0) - truth) < 4.5 * error).all(), name
    assert (happened.purchases <= happened.clicks).all()


def test_who_is_shown_the_same_tires_of_it_until_a_click(shoppers):
    who, lists = np.arange(40), np.tile(np.arange(K), (40, 1))
    before = shoppers.expected(who, lists).clicks
    clicked = shoppers.react(who, lists).clicks > 0
    assert clicked.any() and not clicked.all()
    assert (shoppers.shown[:, :K][clicked] == 0).all()
    assert (shoppers.shown[:, :K][~clicked] == 1).all()
    stayed = ~clicked.any(axis=1)  # who clicked nothing is where they were
    np.testing.assert_allclose(shoppers.expected(who, lists).clicks[stayed], 0.75 * before[stayed])
    newest = shoppers.memory[~stayed, 0]
    assert (newest == np.array([row.nonzero()[0][-1] for row in clicked[~stayed]])).all()


def test_a_position_further_down_is_worth_less_and_the_same_seed_gives_the_same():
    assert (np.diff(examination(10)) < 0).all()
    runs = []
    for _ in range(2):
        made = ReactingShoppers(SHOP, 30, 9)
        viewed = made.wander(np.arange(30))
        runs.append((viewed, made.react(np.arange(30), np.tile(np.arange(K), (30, 1))).totals))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
