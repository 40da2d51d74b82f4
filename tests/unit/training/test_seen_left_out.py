"""Figures are of what users get: seen items that answers leave out are left out where they are ranked."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.events.seen_returns import SeenDefault
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.blend import BLEND, LIVE, Blend
from recsys.training.evaluate import evaluate_on_window, scorer_of, seen_left_out, window_positions
from recsys.training.fit import fit_model
from recsys.training.replay import SERVED, Replay, replayed_ranks
from recsys.training.report import leaving_out


def learned(bundle, exclude_seen):
    facts = replace(bundle.facts, seen=SeenDefault(exclude_seen, {}, None))
    return replace(bundle, facts=facts)


def test_what_is_left_out(case, tiny_shop):
    _, settings, _ = case
    bundle = tiny_shop.bundle
    assert "purchase" in seen_left_out(bundle, settings)  # a version of an earlier release
    assert seen_left_out(learned(bundle, "all"), settings) is None
    assert seen_left_out(learned(bundle, "none"), settings) == frozenset()
    told = settings.serving.model_copy(update={"exclude_seen": "cart"})
    explicit = settings.model_copy(update={"serving": told})
    assert seen_left_out(learned(bundle, "all"), explicit) == {"cart"}


@pytest.mark.parametrize("seen", [None, frozenset({"view"}), frozenset({"cart"}), frozenset()])
def test_a_scorer_leaves_out_the_seen_items_alone(case, tiny_shop, seen):
    log, _, cut_us = case
    bundle = tiny_shop.bundle
    histories = window_positions(log, bundle, cut_us).histories.batch(0, 40)
    plain = scorer_of(bundle)(histories)
    found = leaving_out(scorer_of(bundle), seen, bundle.event_types)(histories)
    for row in range(len(histories)):
        at = range(int(histories.starts[row]), int(histories.ends[row]))
        kinds = {bundle.event_types[histories.event_types[one] - 1] for one in at}
        assert kinds == {"view"}
        out = set(histories[row].tolist()) if seen is None or "view" in seen else set()
        for item in range(FIRST_ITEM, plain.shape[1]):
            expected = -np.inf if item in out else plain[row, item]
            assert found[row, item] == expected


def test_a_seen_target_is_everybodys_miss(case, run):
    log, settings, cut_us = case
    fitted = fit_model(log, settings, "v", cut_us, run)
    champion = fitted.bundle
    by_what = {
        given: evaluate_on_window(log, learned(champion, given), champion, cut_us, settings)
        for given in ("all", "none")
    }
    positions = by_what["all"].positions
    again = np.array(
        [positions.targets[p] in positions.histories[p] for p in range(len(positions))]
    )
    assert again.any() and not again.all()
    for name, found in by_what["all"].ranked.items():
        plain = by_what["none"].ranked[name].ranks
        assert (found.ranks[again] > 20).all(), name
        assert (found.ranks[~again] <= plain[~again]).all(), (
            name
        )  # their places are free for others
    assert by_what["all"].breakdown["repeated_targets"]["recall@20"] == 0
    figures = {given: found.live.figures()["served"] for given, found in by_what.items()}
    assert figures["all"]["recall@20"] < figures["none"]["recall@20"]


@pytest.mark.parametrize("follows", [True, False])
def test_a_replay_leaves_them_out_too(case, tiny_shop, follows):
    log, _, cut_us = case
    blend = Blend({"lstm": 0.5, "session_knn": 0.5})
    bundle = replace(tiny_shop.bundle, ranking=BLEND, blends={BLEND: blend, LIVE: blend})
    positions = window_positions(log, bundle, cut_us)
    ranks = {
        seen: replayed_ranks(
            Replay(log, bundle, cut_us, 1_000_000, seen=seen), positions, live=follows
        )[SERVED]
        for seen in (None, frozenset({"view"}), frozenset({"cart"}), frozenset())
    }
    np.testing.assert_array_equal(ranks[None], ranks[frozenset({"view"})])
    np.testing.assert_array_equal(ranks[frozenset()], ranks[frozenset({"cart"})])
    again = np.array(
        [positions.targets[p] in positions.histories[p] for p in range(len(positions))]
    )
    assert again.any() and (ranks[None][again] > 20).all()
    assert (ranks[None][~again] <= ranks[frozenset()][~again]).all()
    assert (ranks[None][~again] < ranks[frozenset()][~again]).any()
