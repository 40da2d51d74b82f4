"""An older network's weights -> a trainer that knows more items: what a warm start begins with.

Legend: V vocabulary rows.
"""

from __future__ import annotations

import torch

from recsys.events.array_types import Int64Array
from recsys.events.sequences import Sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.lstm.embedding_init import place_among_neighbours
from recsys.models.lstm.network import NextItemNetwork
from recsys.models.lstm.trainer import Trainer


def start_from(
    trainer: Trainer, old: NextItemNetwork, rows: Int64Array, sequences: Sequences
) -> bool:
    """Give `trainer` the weights of `old`; False where the shapes are too different for that.

    rows (V,): for each row of the new table its row in the old one, or -1 for a new item, which
    starts among the items that stood beside it in `sequences`, else from the mean of its category's
    items, else from the mean of all. Event type and category rows keep their codes: `old` and the
    trainer must have been given the same ones, new ones last.
    """
    network = trainer.network
    ours, theirs = network.shape, old.shape
    same = ("width", "layers", "body", "copy", "max_length")
    if any(getattr(ours, name) != getattr(theirs, name) for name in same):
        return False
    if list(ours.channels) != list(theirs.channels):
        return False
    state = {k: v.clone() for k, v in network.state_dict().items()}
    for name, weights in old.state_dict().items():
        if name in ("items.weight", "item_bias", "item_categories"):
            continue
        if name.startswith("channels."):
            state[name][: len(weights)] = weights[: len(state[name])]
        else:
            state[name] = weights.clone()
    known = torch.from_numpy(rows >= 0)
    source = torch.from_numpy(rows[rows >= 0])
    for name in ("items.weight", "item_bias"):
        state[name][known] = old.state_dict()[name][source]
    fresh = (~known).nonzero().squeeze(1)
    fresh = fresh[fresh >= FIRST_ITEM]
    if len(fresh) and bool(known[FIRST_ITEM:].any()):
        categories = network.item_categories.long()
        count = int(categories.max()) + 1
        members = known.clone()
        members[:FIRST_ITEM] = False
        for name in ("items.weight", "item_bias"):
            values = state[name][members]
            sums = torch.zeros(count, *values.shape[1:]).index_add_(0, categories[members], values)
            sizes = torch.bincount(categories[members], minlength=count)
            means = sums / sizes.clamp(min=1).view(-1, *([1] * (values.dim() - 1)))
            means[sizes == 0] = values.mean(0)
            state[name][fresh] = means[categories[fresh]]
        place_among_neighbours(state["items.weight"], fresh, sequences, members)
    network.load_state_dict(state)
    return True
