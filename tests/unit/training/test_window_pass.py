from recsys.training.fit import fit_model
from recsys.training.window_pass import learn_window


def test_the_window_is_learned_with_new_items_and_checked(case, run):
    log, settings, cut_us = case
    fitted = fit_model(log, settings, "v", cut_us, run)
    bundle, window = learn_window(log, fitted, settings, run)
    assert window.events > 0
    assert window.learned is True
    assert len(bundle.vocabulary) == len(fitted.bundle.vocabulary) + window.new_items
    assert bundle.blends == fitted.bundle.blends
