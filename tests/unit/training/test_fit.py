from dataclasses import replace

from recsys.events.time_split import cut_for_share
from recsys.models.blend import BLEND
from recsys.models.version_facts import VersionFacts
from recsys.training.dataset import make_dataset
from recsys.training.fit import fit_model


def test_the_same_seed_gives_the_same_version(case, run):
    log, settings, cut_us = case
    one, two = (fit_model(log, settings, "v", cut_us, run) for _ in range(2))
    ours, theirs = one.bundle.network.state_dict(), two.bundle.network.state_dict()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    assert one.bundle.blends == two.bundle.blends
    assert one.validation == two.validation
    assert set(one.bundle.blends) == {"lstm", BLEND}
    figures = {name: found.objective for name, found in one.validation.items()}
    assert figures[one.bundle.ranking] == max(figures.values())
    assert figures.keys() == {*one.bundle.blends, *one.bundle.rankers}


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
