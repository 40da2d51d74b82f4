from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import NotEnoughDataError
from recsys.training.hyperparameters import SearchBudget, search_settings, with_values


def test_a_search_goes_on_where_it_stopped_and_never_ends_below_its_start(case, run, tmp_path):
    log, settings, cut_us = case
    heard = []

    def search(trials):
        budget = SearchBudget(trials)
        return search_settings(log, settings, cut_us, tmp_path, budget, run, heard.append)

    first = search(2)
    assert [one.number for one in heard] == [0, 1]
    assert heard[0].values["width"] == settings.model.width  # the current settings go first
    assert first.mrr >= heard[0].mrr
    second = search(1)
    assert [one.number for one in heard] == [0, 1, 2]
    assert second.trials + second.pruned == 3
    assert second.mrr >= first.mrr
    chosen = with_values(settings, second.best)
    assert chosen.model.width == second.best["model"]["width"]
    assert chosen.evaluation == settings.evaluation


def test_too_little_validation_cannot_tune(case, run, tmp_path):
    log, settings, cut_us = case
    few = log.sequences.keep(np.arange(log.sequences.event_count) % 20 == 0)
    with pytest.raises(NotEnoughDataError):
        search_settings(
            replace(log, sequences=few), settings, cut_us, tmp_path, SearchBudget(1), run
        )
