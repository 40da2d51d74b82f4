"""What the catalogue tells draws the vectors of rare items, and leaves those of others where they are."""

from dataclasses import replace

import numpy as np

from recsys.events.large_arrays import count_codes
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.content import ItemContent
from recsys.models.lstm.trainer import Trainer
from recsys.training import item_content
from recsys.training.item_content import with_content


def test_rare_items_are_drawn_towards_what_the_catalogue_tells(tiny_shop, case):
    log, _, _ = case
    settings, base = tiny_shop.settings, tiny_shop.bundle
    trainer = Trainer(
        len(base.vocabulary), 3, base.max_length, settings.model, settings.training, base.repeats
    )
    bundle = replace(base, network=trainer.network, light=None)
    rng = np.random.default_rng(3)
    kinds = rng.integers(0, 4, len(bundle.vocabulary) - FIRST_ITEM)
    own = rng.normal(size=(4, trainer.network.shape.width)).astype(np.float32)
    table = (own[kinds] + 0.05 * rng.normal(size=(len(kinds), own.shape[1]))).astype(np.float32)
    trainer.network.put_items(FIRST_ITEM, table)
    told = {
        name: ItemContent(np.array([kind], np.int32))
        for name, kind in zip(bundle.vocabulary.item_ids, kinds, strict=True)
    }
    silent = bundle.vocabulary.item_ids[0]
    del told[silent]
    learned = log.encoded(bundle.vocabulary, bundle.event_types)
    events = count_codes(learned.items, len(bundle.vocabulary))[FIRST_ITEM:]
    found = with_content(bundle, told, learned, 7)
    assert found.content is not None and found.content.explained > 0.9
    now = trainer.network.arrays()["items.weight"][FIRST_ITEM:]
    priors = found.content.vectors(
        [told.get(n, item_content.NOTHING) for n in bundle.vocabulary.item_ids]
    )
    for row, count in enumerate(events):
        held = item_content.PRIOR_EVENTS * found.content.explained if count and row else 0.0
        wanted = (
            (count * table[row] + held * priors[row]) / max(count + held, 1e-9)
            if count
            else table[row]
        )
        np.testing.assert_allclose(now[row], wanted, rtol=1e-4, atol=1e-6)
    rare, common = events.argsort()[1], events.argmax()
    moved = np.linalg.norm(now - table, axis=1)
    assert events[rare] < events[common] and moved[rare] > moved[common] > 0
