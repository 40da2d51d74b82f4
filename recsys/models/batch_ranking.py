"""A bundle's ranking of many histories over the whole catalogue, in training: see `recsys.models.ranking`.

Legend: B histories, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from recsys.events.array_types import Float32Array
from recsys.events.sequences import Histories
from recsys.models.blend import Components, blended
from recsys.models.bundle import Bundle
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.network import as_module
from recsys.models.rankers import dense_scores
from recsys.models.ranking import rankers_in


def scores(
    bundle: Bundle,
    histories: Histories,
    ranking: str | None = None,
    recent: Float32Array | None = None,
) -> Float32Array:
    """Scores (B, V) by `ranking` (default: the one the bundle serves).

    What may not come next (padding, unknown, and what the learned repeat policy rules out) is -inf.
    `recent` (V,): log(1 + recent count) of each item, in place of the bundle's own.
    Raises KeyError where the bundle holds no such ranking.
    """
    name = ranking or bundle.ranking
    if name in bundle.rankers:
        found = dense_scores(bundle.rankers[name], histories, len(bundle.vocabulary))
        bundle.repeats.mask(found, histories)
        return found
    blend = bundle.blends[name]
    return blended(blend, components_of(bundle, histories, rankers_in(bundle, blend), recent))


def components_of(
    bundle: Bundle,
    histories: Histories,
    names: Sequence[str],
    recent: Float32Array | None = None,
) -> Components:
    """Component scores of the network and the rankers called `names` for each history."""
    assert bundle.network is not None and bundle.network_name is not None
    network = as_module(bundle.network)
    scorer = BatchScorer(network, bundle.max_length, bundle.repeats, bundle.matrix)
    found = scorer.predict(histories)
    votes = {
        name: [bundle.component(name).votes(histories[row]) for row in range(len(histories))]
        for name in names
    }
    if recent is None:
        recent = bundle.recent
    return Components(
        network=bundle.network_name,
        scores=found.scores,
        pointed=found.pointed,
        shares=found.shares,
        gate=found.gate,
        votes=votes,
        recent=recent,
    )
