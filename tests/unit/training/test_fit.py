from dataclasses import replace

import pyarrow as pa

from recsys.events.fields import EVENT_SCHEMA
from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.events.times import DAY_US, MINUTE_US
from recsys.models.blend import BLEND, LIVE
from recsys.models.rankers import BLENDABLE
from recsys.models.ranking import best, encode_history
from recsys.models.version_facts import VersionFacts
from recsys.training.dataset import make_dataset
from recsys.training.event_log import make_log
from recsys.training.fit import fit_model
from recsys.training.window_pass import learn_window


def test_the_same_seed_gives_the_same_version(case, run):
    log, settings, cut_us = case
    one, two = (fit_model(log, settings, "v", cut_us, run) for _ in range(2))
    ours, theirs = one.bundle.network.state_dict(), two.bundle.network.state_dict()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    assert one.bundle.blends == two.bundle.blends
    assert one.validation == two.validation
    assert set(one.bundle.blends) == {"lstm", BLEND, LIVE}
    figures = {name: found.objective for name, found in one.validation.items()}
    assert figures[one.bundle.ranking] == max(figures.values())
    assert figures.keys() == {*one.bundle.blends, *one.bundle.rankers} - {LIVE}


def test_where_nothing_can_be_validated_counting_serves(tiny_shop, run):
    """A catalogue new each day: no target of validation was ever seen before it."""
    rows = [
        {
            "user_id": f"u{day}-{user}",
            "item_id": f"d{day}-i{(user + click) % 12}",
            "event_type": "view",
            "timestamp_us": day * DAY_US + user * MINUTE_US + click,
            "event_id": f"{day}-{user}-{click}",
        }
        for day in range(12)
        for user in range(24)
        for click in range(4)
    ]
    log = make_log(frame_from_table(pa.Table.from_pylist(rows, EVENT_SCHEMA)), tiny_shop.settings)
    cut_us = 11 * DAY_US
    first = fit_model(log, tiny_shop.settings, "v", cut_us, run)
    assert first.validation == {} and first.validation_positions < 200
    assert first.bundle.ranking == BLENDABLE[0]
    assert first.bundle.blends[BLEND].weights == {"lstm": 0.0, BLENDABLE[0]: 1.0}
    assert "too few to choose by" in first.summary()
    # The window is learned, and the items of its day come first.
    bundle, window = learn_window(log, first, tiny_shop.settings, run)
    assert window.learned
    last = encode_history(
        bundle, ["d11-i5", "d11-i6"], ["view"] * 2, [cut_us, cut_us + 1], [None] * 2
    )
    shown = [bundle.vocabulary.item_id(row) for row, _, _ in best(bundle, last, 5)]
    assert shown[0] == "d11-i7"
    assert all(name.startswith("d11-") for name in shown)
    # What was chosen once, or not, stays where a warm start can choose no better.
    champion = replace(first.bundle, ranking="transitions", facts=VersionFacts(data_end_us=cut_us))
    again = fit_model(log, tiny_shop.settings, "w", 12 * DAY_US, run, champion)
    assert again.warm and again.bundle.ranking == "transitions"


def test_a_warm_start_keeps_the_champions_items_and_is_not_judged_on_what_it_knows(case, run):
    log, settings, cut_us = case
    earlier = cut_for_share(log.sequences, 0.4)
    first = fit_model(log, settings, "first", earlier, run)
    assert not first.warm
    champion = replace(first.bundle, facts=VersionFacts(data_end_us=earlier - 1))
    second = fit_model(log, settings, "second", cut_us, run, champion)
    assert second.warm
    known = champion.vocabulary.item_ids
    assert second.bundle.vocabulary.item_ids[: len(known)] == known
    assert second.bundle.categories[: len(champion.categories)] == champion.categories
    assert len(second.curve.epochs) <= settings.training.warm_epochs
    dataset = make_dataset(log, settings, cut_us, champion)
    assert not dataset.in_fit[dataset.train.timestamps_us > dataset.fit.timestamps_us.max()].any()
    histories = dataset.validation.histories
    assert (histories.timestamps_us[histories.ends] >= earlier).all()


def test_a_champion_of_another_shape_means_a_cold_start(case, run):
    log, settings, cut_us = case
    earlier = cut_for_share(log.sequences, 0.4)
    champion = replace(
        fit_model(log, settings, "first", earlier, run).bundle,
        facts=VersionFacts(data_end_us=earlier - 1),
    )
    wider = settings.model_copy(update={"model": settings.model.model_copy(update={"width": 24})})
    assert not fit_model(log, wider, "second", cut_us, run, champion).warm


def test_a_finished_training_leaves_no_state_behind(case, run, tmp_path):
    log, settings, cut_us = case
    fit_model(log, settings, "v", cut_us, run, checkpoint_folder=tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []
