"""The copy head: how likely the next item is one of this very history, and which.

Legend: B batch, T time, D width.

    a_t(j) = softmax over j <= t of  q(y_t) . k(x_j) / sqrt(K) + distance bias[t - j]
    g_t    = sigmoid(w . y_t + b)
    P(item after t) = (1 - g_t) * softmax(scores) + g_t * sum of a_t(j) over j with that item

After Gu et al. 2016 (CopyNet) and See et al. 2017 (pointer-generator); the bias by distance is ours,
because in click logs what was seen two steps ago returns far more often than what was seen ten ago.
Places that hold no known item, and the current item where a log never shows it twice in a row, are
left out; where no place is left, g_t is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.lstm.weights import DISTANCES, KEY_WIDTH, NEVER


class CopyHead(nn.Module):
    """Pointer and gate over the inputs of a network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, KEY_WIDTH)
        self.key = nn.Linear(width, KEY_WIDTH)
        self.distance = nn.Parameter(-0.6 * torch.arange(1, DISTANCES + 1).log())
        self.gate = nn.Linear(width, 1)
        nn.init.normal_(self.query.weight, std=0.02)
        nn.init.constant_(self.gate.bias, -1.0)
        # It shifts all logits of a step alike, which a softmax does not see; learned, it would wander
        # with the rounding of its gradient, which is zero.
        nn.init.zeros_(self.key.bias)
        self.key.bias.requires_grad_(False)

    def forward(
        self, x: Tensor, y: Tensor, items: Tensor, current_may_recur: bool
    ) -> tuple[Tensor, Tensor]:
        """Pointer shares (B, T, T), of step t over places j, and gate logits (B, T).

        x (B, T, D) inputs, y (B, T, D) states, items (B, T) with padding and unknown below
        FIRST_ITEM. A row of shares sums to one, or to zero where there is no place to point to; the
        gate's logit is then NEVER.
        """
        scale = KEY_WIDTH**-0.5
        logits = self.query(y) @ self.key(x).transpose(1, 2) * scale  # (B, T, T)
        step = torch.arange(items.shape[1], device=items.device)
        back = step[:, None] - step[None, :]  # (T, T)
        logits = logits + self.distance[back.clamp(0, DISTANCES - 1)]
        barred = (back < 0)[None] | (items < FIRST_ITEM)[:, None, :]
        if not current_may_recur:
            barred = barred | (items[:, None, :] == items[:, :, None])
        shares = logits.masked_fill(barred, NEVER).softmax(-1).masked_fill(barred, 0.0)
        gate: Tensor = self.gate(y).squeeze(-1)
        return shares, gate.masked_fill(barred.all(-1), NEVER)

    def last(
        self, x: Tensor, y: Tensor, items: Tensor, last: Tensor, current_may_recur: bool
    ) -> tuple[Tensor, Tensor]:
        """`forward` for one step of each history alone: shares (B, T), gate logits (B,).

        y (B, D) the states at that step, last (B,) its number.
        """
        scale = KEY_WIDTH**-0.5
        logits = (self.key(x) @ self.query(y)[:, :, None]).squeeze(-1) * scale  # (B, T)
        back = last[:, None] - torch.arange(items.shape[1], device=items.device)  # (B, T)
        logits = logits + self.distance[back.clamp(0, DISTANCES - 1)]
        barred = (back < 0) | (items < FIRST_ITEM)
        if not current_may_recur:
            barred = barred | (items == items.gather(1, last[:, None]))
        shares = logits.masked_fill(barred, NEVER).softmax(-1).masked_fill(barred, 0.0)
        gate: Tensor = self.gate(y).squeeze(-1)
        return shares, gate.masked_fill(barred.all(-1), NEVER)
