from dataclasses import replace

from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.events.times import DAY_US
from recsys.models.blend import BLEND
from recsys.training.evaluate import window_positions
from recsys.training.event_log import make_log
from recsys.training.fit import fit_model


def test_a_log_of_baskets_is_one(case, run, tiny_shop):
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
    fitted = fit_model(baskets, settings, "v", cut_for_share(baskets.sequences, 0.1), run)
    assert set(fitted.bundle.blends) == {"lstm", BLEND}
    positions = window_positions(baskets, fitted.bundle, fitted.cut_us)
    assert positions.baskets is not None
