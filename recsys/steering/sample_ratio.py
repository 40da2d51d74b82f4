"""Whether the arms have as many units as their weights say: where not, something is wrong with the experiment.

The test of Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022), holds at every
look: under the right shares the Bayes factor of other shares, a Dirichlet mixture around the right ones, is a
martingale that starts at 1, and reaches 1 / alpha with a probability of at most alpha, ever (Ville).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONCENTRATION = 1_000.0  # of the mixture: shares a few hundredths off are looked for
ALARM = 0.001  # below it something is wrong


def sample_ratio_p(units: Sequence[int], weights: Sequence[float]) -> float:
    """The p-value at this look, of those that hold at every one, 0..1; `units` of the arms by their `weights`.

    >>> round(sample_ratio_p([5_000, 5_000], [1, 1]), 2), sample_ratio_p([5_000, 5_600], [1, 1]) < ALARM
    (1.0, True)
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    counted = sum(units)
    log_factor = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + counted)
    for number, share in zip(units, shares, strict=True):
        prior = CONCENTRATION * share
        log_factor += math.lgamma(prior + number) - math.lgamma(prior) - number * math.log(share)
    return math.exp(-log_factor) if log_factor > 0 else 1.0
