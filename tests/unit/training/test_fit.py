from dataclasses import replace

import numpy as np
import pytest

from recsys.config import Settings
from recsys.errors import NotEnoughDataError
from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.events.times import DAY_US
from recsys.models.ranking import BLEND, LSTM
from recsys.training.dataset import prepare
from recsys.training.evaluate import matrix_costs, window_positions
from recsys.training.final_pass import learn_window
from recsys.training.fit import learn
from recsys.training.hyperparameters import tune, with_tuned
from recsys.training.training_log import make_log


@pytest.fixture(scope="module")
def case(tiny_shop):
    frame = frame_from_table(tiny_shop.events)
    categories = {item.item_id: item.categories[0] for item in tiny_shop.shop.items}
    log = make_log(frame, tiny_shop.settings, categories)
    return log, tiny_shop.settings, cut_for_share(log.sequences, 0.1)


def changed(settings: Settings, **training) -> Settings:
    return settings.model_copy(update={"training": settings.training.model_copy(update=training)})


def test_nothing_after_the_cut_is_looked_at(case):
    log, settings, cut_us = case
    early = replace(log, sequences=log.sequences.keep(log.sequences.timestamps_us < cut_us))
    one, two = prepare(log, settings, cut_us), prepare(early, settings, cut_us)
    assert one.vocabulary == two.vocabulary
    assert np.array_equal(one.train.items, two.train.items)
    assert np.array_equal(one.positions.targets, two.positions.targets)
    assert int(one.train.timestamps_us.max()) < cut_us
    assert int(one.fit.timestamps_us.max()) < int(one.train.timestamps_us.max())


def test_the_same_seed_gives_the_same_version(case):
    log, settings, cut_us = case
    one, two = (learn(log, settings, "v", cut_us) for _ in range(2))
    ours, theirs = one.bundle.network.state_dict(), two.bundle.network.state_dict()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    assert one.bundle.blends == two.bundle.blends
    assert one.validation == two.validation
    assert set(one.bundle.blends) == {LSTM, BLEND}
    figures = {name: found.figure for name, found in one.validation.items()}
    assert figures[one.bundle.ranking] == max(figures.values())
    assert figures.keys() == {*one.bundle.blends, *one.bundle.rankers}


def test_a_warm_start_keeps_the_champions_items_and_is_not_judged_on_what_it_knows(case):
    log, settings, cut_us = case
    earlier = cut_for_share(log.sequences, 0.4)
    first = learn(log, settings, "first", earlier)
    assert not first.warm
    champion = replace(first.bundle, facts={"data_end_us": earlier - 1})
    second = learn(log, settings, "second", cut_us, champion=champion)
    assert second.warm
    known = champion.vocabulary.item_ids
    assert second.bundle.vocabulary.item_ids[: len(known)] == known
    assert second.bundle.categories[: len(champion.categories)] == champion.categories
    assert len(second.curve.epochs) <= settings.training.warm_epochs
    lesson = prepare(log, settings, cut_us, champion)
    assert not lesson.before[lesson.train.timestamps_us > lesson.fit.timestamps_us.max()].any()
    histories = lesson.positions.histories
    assert (histories.timestamps_us[histories.ends] >= earlier).all()


def test_a_champion_of_another_shape_means_a_cold_start(case):
    log, settings, cut_us = case
    earlier = cut_for_share(log.sequences, 0.4)
    champion = replace(
        learn(log, settings, "first", earlier).bundle, facts={"data_end_us": earlier - 1}
    )
    wider = settings.model_copy(update={"model": settings.model.model_copy(update={"width": 24})})
    assert not learn(log, wider, "second", cut_us, champion=champion).warm


def test_a_finished_training_leaves_no_state_behind(case, tmp_path):
    log, settings, cut_us = case
    learn(log, settings, "v", cut_us, workplace=tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_the_window_is_learned_with_new_items_and_checked(case):
    log, settings, cut_us = case
    learned = learn(log, settings, "v", cut_us)
    positions = window_positions(log, learned.bundle, cut_us)
    bundle, facts = learn_window(log, learned, positions, settings)
    assert facts["events"] > 0
    assert facts["learned"] is True
    assert len(bundle.vocabulary) == len(learned.bundle.vocabulary) + facts["new_items"]
    assert bundle.blends == learned.bundle.blends


def test_every_form_of_the_item_table_says_what_it_costs(case):
    log, settings, cut_us = case
    learned = learn(log, settings, "v", cut_us)
    costs = matrix_costs(log, learned.bundle, cut_us)
    assert list(costs) == ["float32", "bfloat16", "int8"]
    for figures in costs.values():
        assert abs(figures["recall@20"] - costs["float32"]["recall@20"]) < 0.03
    assert costs["int8"]["mib"] < costs["bfloat16"]["mib"] < costs["float32"]["mib"]
    assert learned.bundle.network.items.weight.numel() > 0  # still whole


def test_a_search_goes_on_where_it_stopped_and_never_ends_below_its_start(case, tmp_path):
    log, settings, cut_us = case
    heard = []

    def hear(number, mrr, found):
        heard.append((number, mrr, found))

    first = tune(log, settings, cut_us, tmp_path, 2, None, on_trial=hear)
    assert [number for number, _, _ in heard] == [0, 1]
    assert heard[0][2]["width"] == settings.model.width  # the current settings go first
    assert first.mrr >= heard[0][1]
    second = tune(log, settings, cut_us, tmp_path, 1, None, on_trial=hear)
    assert [number for number, _, _ in heard] == [0, 1, 2]
    assert second.trials + second.pruned == 3
    assert second.mrr >= first.mrr
    chosen = with_tuned(settings, second.best)
    assert chosen.model.width == second.best["model"]["width"]
    assert chosen.evaluation == settings.evaluation


def test_too_little_validation_cannot_tune(case, tmp_path):
    log, settings, cut_us = case
    few = log.sequences.keep(np.arange(log.sequences.event_count) % 20 == 0)
    with pytest.raises(NotEnoughDataError):
        tune(replace(log, sequences=few), settings, cut_us, tmp_path, 1, None)


def test_a_log_of_baskets_is_one(case, tiny_shop):
    log, settings, _ = case
    assert not log.baskets
    frame = frame_from_table(tiny_shop.events)
    hours = frame.timestamps_us // DAY_US * DAY_US
    tied = replace(frame, timestamps_us=hours)
    assert make_log(tied, settings).baskets
    wanted = settings.model_copy(
        update={"evaluation": settings.evaluation.model_copy(update={"target": "next_item"})}
    )
    assert not make_log(tied, wanted).baskets
    baskets = make_log(tied, settings)
    learned = learn(baskets, settings, "v", cut_for_share(baskets.sequences, 0.1))
    assert set(learned.bundle.blends) == {LSTM, BLEND}
    positions = window_positions(baskets, learned.bundle, learned.cut_us)
    assert positions.baskets is not None
