"""The promotion verdict: a worse model never goes live.

All systems have ranked the same positions of one time window that none of them, the champion
included, was trained on. The candidate is promoted when

1. there are enough positions to tell,
2. for recall@20 and for MRR@20, the lower 95% bound of candidate minus champion lies above
   -margin times the champion's figure, and
3. its MRR@20 is not below any ranker's: what needs no training must not do better.

With no champion the best ranking on validation is published, whichever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recsys.events.array_types import Int64Array
from recsys.training.metrics import reciprocal_rank
from recsys.training.report import METRICS, difference, plain

JUDGED = ("recall@20", "mrr@20")


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate goes live, why, and the numbers behind it."""

    promote: bool
    reason: str
    numbers: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def verdict(
    candidate: Int64Array,
    champion: Int64Array | None,
    rankers: Mapping[str, Int64Array],
    owners: Int64Array,
    *,
    ranking: str,
    margin: float,
    min_positions: int,
    draws: int,
    seed: int,
) -> Verdict:
    """Judge from conservative ranks (P,) of the same positions; `ranking` is the candidate's kind."""
    numbers: dict[str, Any] = {
        "positions": len(candidate),
        "candidate": _figures(candidate),
        "champion": None if champion is None else _figures(champion),
        "rankers": {name: _figures(found) for name, found in rankers.items()},
    }
    if champion is not None and len(candidate) < min_positions:
        return Verdict(
            False,
            f"kept back: {len(candidate)} positions to judge by, {min_positions} are needed",
            numbers,
        )
    if champion is None:
        reason = f"promoted: there is no champion yet; {ranking} ranked validation best"
        return Verdict(True, reason, numbers)
    versus = difference(candidate, champion, owners, draws, seed)
    numbers["versus_champion"] = plain(versus)
    for metric in JUDGED:
        figure = float(METRICS[metric](champion).mean())
        bound = -margin * figure
        if versus[metric]["low"] <= bound:
            return Verdict(
                False,
                f"refused: {metric} minus the champion's may be as low as "
                f"{versus[metric]['low']:+.4f} (95%), below the bound of {bound:+.4f}",
                numbers,
            )
    own = float(reciprocal_rank(candidate, 20).mean())
    for name, found in rankers.items():
        other = float(reciprocal_rank(found, 20).mean())
        if own < other:
            return Verdict(
                False,
                f"refused: mrr@20 is {own:.4f}, and {name}, which needs no training, has {other:.4f}",
                numbers,
            )
    change = versus["mrr@20"]
    return Verdict(
        True,
        f"promoted: mrr@20 minus the champion's is {change['difference']:+.4f} "
        f"(95%: {change['low']:+.4f} to {change['high']:+.4f})",
        numbers,
    )


def _figures(found: Int64Array) -> dict[str, float]:
    if len(found) == 0:
        return dict.fromkeys(METRICS, 0.0)
    return {name: round(float(metric(found).mean()), 6) for name, metric in METRICS.items()}
