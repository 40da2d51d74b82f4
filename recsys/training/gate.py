"""The promotion gate: a worse model never goes live.

All systems have ranked the same positions of one time window that none of them, the champion
included, was trained on. The candidate is promoted when

1. there are enough positions to tell,
2. for recall@20 and for MRR@20, the lower 95% bound of candidate minus champion lies above
   -margin times the champion's figure, and
3. its MRR@20 is not below any ranker's: what needs no training must not do better.

With no champion the best ranking on validation is published, whichever it is; where validation had
too few positions to choose by, a ranker that counts, and the verdict praises nothing. Where answers
follow the live log, all are judged as they would have been served: on the positions of the window
replayed in the order of time, targets that no training has seen among them. Every verdict
says how many positions it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from recsys.config import Settings
from recsys.events.array_types import Int64Array
from recsys.models.bundle import Bundle
from recsys.models.version_facts import GateNumbers, Verdict
from recsys.training.evaluate import Evaluation
from recsys.training.fit import FittedModel
from recsys.training.report import ENOUGH_POSITIONS, METRICS, difference, reciprocal_rank, rounded

JUDGED = ("recall@20", "mrr@20")


@dataclass(frozen=True)
class GateRanks:
    """Conservative ranks (P,) of the same positions by every system."""

    candidate: Int64Array
    champion: Int64Array | None
    rankers: Mapping[str, Int64Array]
    owners: Int64Array  # (P,) whose each position is
    seen: int  # positions with a target that training has seen


@dataclass(frozen=True)
class GateRules:
    """The limits of the gate and of the bootstrap behind its intervals."""

    margin: float  # share of the champion's figure
    min_positions: int
    draws: int
    seed: int

    @classmethod
    def of(cls, settings: Settings) -> GateRules:
        return cls(
            settings.promotion.margin,
            settings.promotion.min_positions,
            settings.evaluation.bootstrap_draws,
            settings.training.seed,
        )


def judge(
    evaluation: Evaluation, fitted: FittedModel, champion: Bundle | None, settings: Settings
) -> Verdict:
    """The gate's verdict on the candidate beside the champion and every ranker on one window."""
    ranked, candidate, live = evaluation.ranked, fitted.bundle, evaluation.live
    rules = GateRules.of(settings)
    if live is not None and live.seen >= ENOUGH_POSITIONS:
        ranks = GateRanks(
            candidate=live.ranks["served"],
            champion=live.ranks.get("champion"),
            rankers={n: found for n, found in live.ranks.items() if n in candidate.rankers},
            owners=live.owners,
            seen=live.seen,
        )
        return verdict(ranks, rules, candidate.ranking, fitted.validation_positions)
    ranks = GateRanks(
        candidate=ranked["served"].ranks,
        champion=None if champion is None else ranked["champion"].ranks,
        rankers={name: ranked[name].ranks for name in candidate.rankers},
        owners=evaluation.positions.owners,
        seen=len(evaluation.positions.known),
    )
    return verdict(ranks, rules, candidate.ranking, fitted.validation_positions)


def verdict(ranks: GateRanks, rules: GateRules, ranking: str, chosen_by: int) -> Verdict:
    """Judge a candidate that serves `ranking`, chosen by so many validation positions."""
    count, champion = len(ranks.candidate), ranks.champion
    numbers = GateNumbers(
        positions=count,
        seen_positions=ranks.seen,
        validation_positions=chosen_by,
        candidate=_figures(ranks.candidate),
        champion=None if champion is None else _figures(champion),
        rankers={name: _figures(found) for name, found in ranks.rankers.items()},
    )
    if champion is None:
        if chosen_by < ENOUGH_POSITIONS:
            reason = (
                f"promoted for want of a champion: validation has {chosen_by:,} positions, too few to "
                f"choose by ({ENOUGH_POSITIONS} are needed), so {ranking} serves until the network has "
                f"shown itself; the figures rest on {ranks.seen:,} of {count:,} test positions, those "
                f"with a target that training has seen"
            )
            return Verdict(True, reason, numbers)
        reason = (
            f"promoted: there is no champion yet; of its rankings {ranking} did best on "
            f"{chosen_by:,} validation positions (the test window has {count:,})"
        )
        return Verdict(True, reason, numbers)
    if count < rules.min_positions:
        reason = f"kept back: {count} positions to judge by, {rules.min_positions} are needed"
        return Verdict(False, reason, numbers)
    versus = difference(ranks.candidate, champion, ranks.owners, rules.draws, rules.seed)
    numbers = replace(numbers, versus_champion=rounded(versus))
    for metric in JUDGED:
        low, bound = versus[metric]["low"], -rules.margin * float(METRICS[metric](champion).mean())
        if low <= bound:
            reason = (
                f"refused: {metric} minus the champion's may be as low as "
                f"{low:+.4f} (95%, {count:,} positions), below the bound of {bound:+.4f}"
            )
            return Verdict(False, reason, numbers)
    own = float(reciprocal_rank(ranks.candidate, 20).mean())
    for name, found in ranks.rankers.items():
        other = float(reciprocal_rank(found, 20).mean())
        if own < other:
            reason = (
                f"refused: mrr@20 is {own:.4f}, and {name}, which needs no training, "
                f"has {other:.4f} ({count:,} positions)"
            )
            return Verdict(False, reason, numbers)
    change = versus["mrr@20"]
    reason = (
        f"promoted: mrr@20 minus the champion's is {change['difference']:+.4f} "
        f"(95%: {change['low']:+.4f} to {change['high']:+.4f}; {count:,} positions)"
    )
    return Verdict(True, reason, numbers)


def _figures(found: Int64Array) -> dict[str, float]:
    """The mean of each metric; 0 where there are no positions."""
    if len(found) == 0:
        return dict.fromkeys(METRICS, 0.0)
    return {name: round(float(metric(found).mean()), 6) for name, metric in METRICS.items()}
