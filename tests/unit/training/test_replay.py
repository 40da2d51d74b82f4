"""Positions replayed in the order of time: as a request at that moment, and with nothing of its future."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.events.vocabulary import UNKNOWN
from recsys.models import live_view
from recsys.models.blend import BLEND, LIVE, Blend
from recsys.models.content import COLUMNS, ContentMap, ItemContent
from recsys.models.live_log import BEGINS_US_BEFORE, LiveLog
from recsys.models.live_view import LiveView
from recsys.models.ranking import best
from recsys.training.evaluate import window_positions
from recsys.training.replay import MISSED, SERVED, K, Replay, replayed_ranks

DELAY_US = 60_000_000


@pytest.fixture(scope="module")
def played(case, tiny_shop):
    log, _, cut_us = case
    blend = Blend(
        {
            "lstm": 0.5,
            "session_knn": 0.3,
            "transitions": 0.1,
            "trending": 0.05,
            "trending_day": 0.05,
        }
    )
    known = tiny_shop.bundle.vocabulary
    # A third of the items are new, as if they had come after the training.
    hidden = np.array([row for row in range(2, len(known)) if row % 3 == 0])
    bundle = replace(
        tiny_shop.bundle,
        ranking=BLEND,
        blends={BLEND: blend, LIVE: blend},
        vocabulary=known.without(hidden),
    )
    return log, bundle, cut_us, window_positions(log, bundle, cut_us)


def by_hand(log, bundle, cut_us, positions, delay_us) -> np.ndarray:
    """Every position by itself, from a log that is built anew of what was known then."""
    sequences, names = log.sequences, log.item_ids
    owners = sequences.owners()
    sessions = np.cumsum(sequences.session_starts).astype(np.uint64)
    order = np.argsort(sequences.timestamps_us, kind="stable")
    ranks = np.full(len(positions), MISSED)
    first_us = cut_us - BEGINS_US_BEFORE
    for number in range(len(positions)):
        end = int(positions.histories.ends[number])
        now_us = int(sequences.timestamps_us[end])
        live = LiveLog(bundle.session_gap_seconds, 100_000)
        for at in order:
            if first_us <= sequences.timestamps_us[at] <= now_us - delay_us:
                live = live.append(
                    [int(owners[at])],
                    [names[sequences.items[at]]],
                    sequences.timestamps_us[at : at + 1],
                    sessions[at : at + 1],
                )
        view = LiveView.of(bundle, cut_us - 1)
        view.catch_up(live)
        start = max(int(positions.histories.starts[number]), end - bundle.max_length)
        own = [names[code] for code in sequences.items[start:end]]
        moment = view.moment(own, live.owner(int(positions.owners[number])), now_us)
        history = positions.histories.batch(number, number + 1).last(bundle.max_length)
        at = slice(int(history.starts[0]), int(history.ends[0]))
        history = replace(
            history,
            items=moment.vocabulary.encode(own),
            event_types=history.event_types[at],
            timestamps_us=history.timestamps_us[at],
            session_starts=history.session_starts[at],
            starts=np.zeros(1, np.int64),
            ends=np.array([len(own)]),
        )
        target = moment.vocabulary.index(names[sequences.items[end]])
        ranked = best(bundle.with_live(moment), history, 2 * K)
        for row, score, _ in ranked:
            if row == target and target != UNKNOWN and score > 0:
                rank = sum(other >= score for _, other, _ in ranked)
                ranks[number] = rank if rank <= K else MISSED
    return ranks


def test_it_ranks_as_a_slow_replay_does(played, monkeypatch):
    monkeypatch.setattr(
        live_view, "KEPT_SHARE", 0.0
    )  # what is trending is counted at each position
    log, bundle, cut_us, positions = played
    some = positions.where(np.arange(len(positions)) % 7 == 0)
    found = replayed_ranks(Replay(log, bundle, cut_us, DELAY_US), some)[SERVED]
    np.testing.assert_array_equal(found, by_hand(log, bundle, cut_us, some, DELAY_US))
    unknown = some.targets == UNKNOWN
    assert (
        unknown.any() and (found[unknown] <= K).any()
    )  # items that no training has seen are found


def test_nothing_of_the_future_changes_a_rank(played):
    log, bundle, cut_us, positions = played
    times = log.sequences.timestamps_us
    split_us = int(np.median(times[positions.histories.ends]))
    early = positions.where(times[positions.histories.ends] <= split_us)
    ranks = replayed_ranks(Replay(log, bundle, cut_us, DELAY_US), early)[SERVED]
    later = times > split_us
    items = log.sequences.items.copy()
    items[later] = np.random.default_rng(1).permutation(items[later])
    other = replace(log, sequences=replace(log.sequences, items=items))
    again = replayed_ranks(Replay(other, bundle, cut_us, DELAY_US), early)[SERVED]
    np.testing.assert_array_equal(ranks, again)


def test_without_the_live_log_an_unknown_target_is_a_miss(played):
    log, bundle, cut_us, positions = played
    still = replayed_ranks(Replay(log, bundle, cut_us, DELAY_US), positions, live=False)[SERVED]
    live = replayed_ranks(Replay(log, bundle, cut_us, DELAY_US), positions)[SERVED]
    unknown = positions.targets == UNKNOWN
    assert (still[unknown] == MISSED).all()
    assert (live <= K).mean() > (still <= K).mean()


def test_what_the_catalogue_tells_ranks_targets_that_nobody_has_clicked(played):
    log, bundle, cut_us, positions = played
    table = bundle.network.items.weight.detach().numpy()
    weights = np.zeros((COLUMNS, table.shape[1]), np.float32)
    weights[: len(table)] = table  # each item has a word of its own, which tells its vector
    content = ContentMap(np.ones(COLUMNS, np.float32), weights, np.zeros_like(table[0]))
    items = enumerate(bundle.vocabulary.item_ids, 2)
    told = replace(
        log, contents={name: ItemContent(np.array([row], np.int32)) for row, name in items}
    )
    unknown = positions.where(positions.targets == UNKNOWN)
    never_us = 10**15  # what others do is never known
    plain = replayed_ranks(Replay(log, bundle, cut_us, never_us), unknown)[SERVED]
    replay = Replay(told, replace(bundle, content=content), cut_us, never_us)
    assert (replayed_ranks(replay, unknown)[SERVED] <= K).mean() > (plain <= K).mean() + 0.1
    silent = Replay(told, bundle, cut_us, never_us)  # without a map the catalogue tells nothing
    np.testing.assert_array_equal(replayed_ranks(silent, unknown)[SERVED], plain)
