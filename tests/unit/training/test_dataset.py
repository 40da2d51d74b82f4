from dataclasses import replace

import numpy as np

from recsys.training.dataset import make_dataset


def test_nothing_after_the_cut_is_looked_at(case):
    log, settings, cut_us = case
    early = replace(log, sequences=log.sequences.keep(log.sequences.timestamps_us < cut_us))
    one, two = make_dataset(log, settings, cut_us), make_dataset(early, settings, cut_us)
    assert one.vocabulary == two.vocabulary
    assert np.array_equal(one.train.items, two.train.items)
    assert np.array_equal(one.validation.targets, two.validation.targets)
    assert int(one.train.timestamps_us.max()) < cut_us
    assert int(one.fit.timestamps_us.max()) < int(one.train.timestamps_us.max())
