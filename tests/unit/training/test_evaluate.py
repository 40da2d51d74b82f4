from recsys.training.evaluate import matrix_costs
from recsys.training.fit import fit_model


def test_every_form_of_the_item_table_says_what_it_costs(case, run):
    log, settings, cut_us = case
    fitted = fit_model(log, settings, "v", cut_us, run)
    costs = matrix_costs(log, fitted.bundle, cut_us)
    assert list(costs) == ["float32", "bfloat16", "int8"]
    for figures in costs.values():
        assert abs(figures["recall@20"] - costs["float32"]["recall@20"]) < 0.03
    assert costs["int8"]["mib"] < costs["bfloat16"]["mib"] < costs["float32"]["mib"]
    assert fitted.bundle.network.items.weight.numel() > 0  # still whole
