"""The simulated shop's log to compare rankers on, cut at its last week, beside the oracle that knows it."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from recsys.config import Settings
from recsys.demo.simulation import Shop, ShopSize
from recsys.events.frame import frame_from_table
from recsys.events.times import WEEK_US
from recsys.events.vocabulary import Vocabulary
from recsys.training.compare import ComparisonData
from recsys.training.event_log import make_log
from recsys.training.report import Scorer

SHOP_END_US = 1_767_225_600_000_000  # 2026-01-01: figures are the same whenever they are asked for
SHOP_SEED = 7


def simulated_shop(
    settings: Settings, size: ShopSize
) -> tuple[ComparisonData, Callable[[Vocabulary], dict[str, Scorer]]]:
    """The shop's views, cut at its last week, and its oracle for a vocabulary."""
    shop = Shop(size, SHOP_SEED, SHOP_END_US)
    frame = frame_from_table(pa.concat_tables(list(shop.events())))
    views = settings.sequences.model_copy(
        update={"input_event_types": ("view",), "target_event_types": ("view",)}
    )
    log = make_log(frame, settings.model_copy(update={"sequences": views}))

    def oracle(vocabulary: Vocabulary) -> dict[str, Scorer]:
        return {"oracle": lambda histories: shop.oracle_scores(histories, vocabulary)}

    return ComparisonData(log, None, SHOP_END_US - WEEK_US), oracle
