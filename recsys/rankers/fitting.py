"""Every ranker, fitted to the same sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recsys.events.sequences import Sequences
from recsys.rankers import RANKERS, Ranker
from recsys.rankers.popular import Popular
from recsys.rankers.session_knn import SessionKnn


def fit_rankers(
    sequences: Sequences,
    rows: int,
    limit: int,
    settings: Mapping[str, Ranker] | None = None,
) -> dict[str, Ranker]:
    """Every ranker, fitted to sequences of vocabulary indices, with the settings of `settings`.

    What counts steps and sessions is fitted to the newest `limit` events: it needs some 250 bytes
    of memory for each.
    """
    newest = sequences.newest(limit)
    fitted: dict[str, Ranker] = {
        name: kind.fit(sequences if issubclass(kind, Popular) else newest, rows)
        for name, kind in RANKERS.items()
    }
    knn = fitted["session_knn"]
    assert isinstance(knn, SessionKnn)
    fitted["session_knn"] = with_choices(knn, settings or {})
    return fitted


def with_choices(knn: SessionKnn, settings: Mapping[str, Ranker]) -> SessionKnn:
    """`knn` with what was chosen on validation for the one among `settings`, if there is one."""
    chosen = settings.get("session_knn")
    if not isinstance(chosen, SessionKnn):
        return knn
    return replace(knn, order_decay=chosen.order_decay, copy_share=chosen.copy_share)
