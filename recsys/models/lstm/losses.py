"""Cross-entropy over the catalogue or over sampled items, mixed with the copy head.

Legend: P positions in a batch, V vocabulary rows, R rows in use, D width, N negatives.

Sampled softmax (Jean et al. 2015; correction as in Bengio and Senecal 2008): N negatives shared by
the whole batch, half drawn uniformly, half by count^0.5 as GRU4Rec does. The logarithm of the
expected count of each negative is subtracted from its logit, so that the sum over negatives
estimates the sum over the catalogue without bias; the target is always present and is not
corrected. A negative that happens to be the position's target is masked. With every item a negative
of expected count one this is the full softmax, so both are one function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsys.events.array_types import Float32Array, Int64Array
from recsys.events.vocabulary import FIRST_ITEM

CHUNK_FLOATS = 1 << 18  # logits worked on at a time: 1 MiB stays in a core's cache


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
        """Item indices (N,), with repetition, in ascending order."""
        uniform = rng.integers(FIRST_ITEM, self._rows, self._half)
        popular = np.searchsorted(self._cumulative, rng.random(self._rest), side="right")
        return np.sort(np.concatenate((uniform, np.minimum(popular, self._rows - 1))))

    def log_expected(self, negatives: Int64Array) -> Float32Array:
        """The logarithm of the expected count of each of `negatives`; same shape."""
        return self._log_expected[negatives]


@dataclass(frozen=True)
class RowsInUse:
    """The rows of the item table that one step needs, so that its cost does not grow with V."""

    rows: Tensor | None  # (R,) ascending; None = every row
    table: Tensor  # (R, D)
    bias: Tensor  # (R,)
    negatives: Int64Array  # (N,) numbered by the rows in use, ascending
    log_expected: Float32Array  # (N,)

    @classmethod
    def whole(cls, table: Tensor, bias: Tensor) -> RowsInUse:
        """Every row, and every item a negative: the full softmax."""
        negatives = np.arange(FIRST_ITEM, len(table))
        return cls(None, table, bias, negatives, np.zeros(len(negatives), np.float32))

    @classmethod
    def sampled(
        cls,
        table: Tensor,
        bias: Tensor,
        needed: Int64Array,
        sampler: NegativeSampler,
        rng: np.random.Generator,
    ) -> RowsInUse:
        """The rows `needed`, in any order and repeated, and those of negatives drawn by `rng`."""
        drawn = sampler.draw(rng)
        used = np.unique(np.concatenate((needed, drawn)))
        rows = torch.from_numpy(used).to(table.device)
        return cls(
            rows,
            table.detach().index_select(0, rows).requires_grad_(),
            bias.detach().index_select(0, rows).requires_grad_(),
            np.searchsorted(used, drawn),
            sampler.log_expected(drawn),
        )

    def number(self, items: Int64Array) -> Int64Array:
        """Items in use, of any shape, numbered by the rows in use."""
        return items if self.rows is None else np.searchsorted(self.rows.cpu().numpy(), items)


def accidental_hits(targets: Int64Array, negatives: Int64Array) -> tuple[Int64Array, Int64Array]:
    """All (position, place among negatives) where the negative is the position's target.

    targets (P,); negatives (N,) ascending.

    >>> positions, places = accidental_hits(np.array([5, 3, 9]), np.array([3, 5, 5, 7]))
    >>> positions.tolist(), places.tolist()
    ([0, 0, 1], [1, 2, 0])
    """
    first = np.searchsorted(negatives, targets, side="left")
    counts = np.searchsorted(negatives, targets, side="right") - first
    positions = np.repeat(np.arange(len(targets)), counts)
    within = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
    return positions, first[positions] + within


class _LogSoftmaxAtTargets(torch.autograd.Function):
    """log of exp(target) / (exp(target) + sum of exp(negatives)), with its gradient by hand.

    The (P, N) logits are the largest array of a step: they are made once, turned into shares in
    place, chunk by chunk while a chunk is in the cache, and turned into their own gradient in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,  # (P, D)
        table: Tensor,  # (R, D)
        bias: Tensor,  # (R,)
        targets: Tensor,  # (P,)
        negatives: Tensor,  # (N,)
        log_expected: Tensor,  # (N,)
        hit_positions: Tensor,  # (H,)
        hit_places: Tensor,  # (H,)
        product: torch.dtype,
    ) -> Tensor:
        others = table.index_select(0, negatives)  # (N, D)
        offsets = bias[negatives] - log_expected  # (N,)
        own = (states * table.index_select(0, targets)).sum(-1) + bias[targets]  # (P,)
        if product == states.dtype:
            shares = torch.addmm(offsets, states, others.T)  # (P, N) logits until turned
        else:
            shares = (states.to(product) @ others.to(product).T).to(states.dtype).add_(offsets)
        shares[hit_positions, hit_places] = -torch.inf
        top, total = torch.empty_like(own), torch.empty_like(own)
        rows = max(1, CHUNK_FLOATS // max(1, len(negatives)))
        for at in range(0, len(states), rows):
            part = shares[at : at + rows]
            most = torch.maximum(part.amax(1), own[at : at + rows])
            part.sub_(most[:, None]).exp_()
            top[at : at + rows] = most
            torch.sum(part, 1, out=total[at : at + rows])
        target_part = (own - top).exp()
        total += target_part
        ctx.save_for_backward(states, table, targets, negatives, shares, total, target_part)
        ctx.product = product
        return own - top - total.log()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, table, targets, negatives, shares, total, target_part = ctx.saved_tensors
        gradient = gradients[0]
        rows = max(1, CHUNK_FLOATS // max(1, len(negatives)))
        for at in range(0, len(states), rows):
            scale = -gradient[at : at + rows] / total[at : at + rows]
            shares[at : at + rows].mul_(scale[:, None])
        own = gradient * (1.0 - target_part / total)  # (P,)
        others = table.index_select(0, negatives)
        if ctx.product == states.dtype:
            state_gradient = shares @ others  # (P, D)
            other_gradient = shares.T @ states  # (N, D)
        else:
            narrow = shares.to(ctx.product)
            state_gradient = (narrow @ others.to(ctx.product)).to(states.dtype)
            other_gradient = (narrow.T @ states.to(ctx.product)).to(states.dtype)
        state_gradient.addcmul_(own[:, None], table.index_select(0, targets))
        table_gradient = torch.zeros_like(table)
        table_gradient.index_add_(0, negatives, other_gradient)
        table_gradient.index_add_(0, targets, own[:, None] * states)
        bias_gradient = torch.zeros(len(table), dtype=table.dtype, device=table.device)
        bias_gradient.index_add_(0, negatives, shares.sum(0))
        bias_gradient.index_add_(0, targets, own)
        return state_gradient, table_gradient, bias_gradient, *([None] * 6)


def log_softmax_at(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    targets: Int64Array,
    negatives: Int64Array,
    log_expected: Float32Array,
    product: torch.dtype = torch.float32,
) -> Tensor:
    """log P(target) (P,) of the softmax over the target and the negatives.

    states (P, D); table (R, D) and bias (R,) of the rows in use; targets (P,) and negatives (N,)
    numbered by those rows, negatives ascending; log_expected (N,), zero for the full softmax;
    `product` is the type the large products are made in.
    """
    hits = accidental_hits(targets, negatives)
    device = states.device
    found: Tensor = _LogSoftmaxAtTargets.apply(  # type: ignore[no-untyped-call]
        states,
        table,
        bias,
        torch.from_numpy(targets).to(device),
        torch.from_numpy(negatives).to(device),
        torch.from_numpy(log_expected).to(device),
        torch.from_numpy(hits[0]).to(device),
        torch.from_numpy(hits[1]).to(device),
        product,
    )
    return found


def mix_with_copies(generated: Tensor, pointed: Tensor, gate: Tensor) -> Tensor:
    """log of (1 - g) * exp(generated) + g * pointed; all (P,), g = sigmoid(gate)."""
    copied = functional.logsigmoid(gate) + torch.log(pointed + 1e-20)
    return torch.logaddexp(functional.logsigmoid(-gate) + generated, copied)
