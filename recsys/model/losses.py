"""Full and sampled softmax cross-entropy.

Legend: P positions in a batch, V vocabulary rows, D width, N negatives.

Sampled softmax (Jean et al. 2015; correction as in Bengio and Senecal 2008): N negatives shared by
the whole batch, half drawn uniformly, half by count^0.5 as GRU4Rec does. The logarithm of the
expected count of each negative is subtracted from its logit, so that the sum over negatives
estimates the sum over the catalogue without bias; the target is always present and is not
corrected. A negative that happens to be the position's target is masked.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recsys.data.vocabulary import FIRST_ITEM

Int64Array = NDArray[np.int64]


class NegativeSampler:
    """Draws the shared negatives and knows how often each is expected."""

    def __init__(self, target_counts: Int64Array, negatives: int) -> None:
        """`target_counts` (V,): how often each row is a target; padding and unknown are never drawn."""
        weights = np.sqrt(target_counts.astype(np.float64))
        weights[:FIRST_ITEM] = 0.0
        items = len(target_counts) - FIRST_ITEM
        uniform = np.full(len(target_counts), 1.0 / items)
        uniform[:FIRST_ITEM] = 0.0
        share = weights / weights.sum() if weights.sum() > 0 else uniform
        self._cumulative = np.cumsum(share)
        self._cumulative /= self._cumulative[-1]
        self._rows = len(target_counts)
        self._half = negatives // 2
        self._rest = negatives - self._half
        expected = self._half * uniform + self._rest * share  # (V,) draws of each row in a batch
        self._log_expected = np.log(np.maximum(expected, 1e-30)).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> Int64Array:
        """Item indices (N,), with repetition."""
        uniform = rng.integers(FIRST_ITEM, self._rows, self._half)
        popular = np.searchsorted(self._cumulative, rng.random(self._rest), side="right")
        return np.concatenate((uniform, np.minimum(popular, self._rows - 1)))

    def log_expected(self, negatives: Int64Array) -> NDArray[np.float32]:
        """The logarithm of the expected count of each of `negatives`; same shape."""
        return self._log_expected[negatives]


def full_loss(
    states: Tensor, table: Tensor, bias: Tensor, targets: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sum of -log softmax at the targets, over the catalogue.

    states (P, D), table (V, D), bias (V,), targets (P,) rows, weights (P,).
    """
    logits = states @ table.T + bias  # (P, V)
    logits = torch.cat(
        (logits.new_full((len(logits), FIRST_ITEM), -torch.inf), logits[:, FIRST_ITEM:]), dim=1
    )
    return (functional.cross_entropy(logits, targets, reduction="none") * weights).sum()


def sampled_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    targets: Tensor,
    weights: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
) -> Tensor:
    """The sampled counterpart of `full_loss`.

    states (P, D), table (R, D) and bias (R,) of the rows in use, targets (P,) and negatives (N,)
    numbered by those rows, log_expected (N,), weights (P,).
    """
    positive = (states * table[targets]).sum(-1) + bias[targets]  # (P,)
    offsets = bias[negatives] - log_expected  # (N,)
    logits = torch.addmm(offsets, states, table[negatives].T)  # (P, N)
    logits = logits.masked_fill(targets[:, None] == negatives[None, :], -torch.inf)
    total = torch.logaddexp(torch.logsumexp(logits, dim=1), positive)  # (P,)
    return ((total - positive) * weights).sum()
