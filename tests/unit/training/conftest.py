"""The tiny shop's log, its settings, and where its test window starts."""

from datetime import UTC, datetime

import pytest

from recsys.events.frame import frame_from_table
from recsys.events.time_split import cut_for_share
from recsys.training.event_log import make_log
from recsys.training.run import Run


@pytest.fixture(scope="session")
def case(tiny_shop):
    frame = frame_from_table(tiny_shop.events)
    categories = {item.item_id: item.categories[0] for item in tiny_shop.shop.items}
    log = make_log(frame, tiny_shop.settings, categories)
    return log, tiny_shop.settings, cut_for_share(log.sequences, 0.1)


@pytest.fixture(scope="session")
def run():
    return Run(datetime(2025, 3, 1, tzinfo=UTC))
