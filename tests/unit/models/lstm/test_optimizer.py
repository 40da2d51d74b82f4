import pytest
import torch
from torch import nn

from recsys.models.lstm.optimizer import BETAS, DenseAdamW


def parameters(seed: int = 1) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((12, 5), (12,), (3, 4, 2), (7,))
    return [nn.Parameter(torch.randn(*size, generator=generator)) for size in sizes]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_dense_parameters_move_as_under_torchs_own_adamw(decay):
    ours, theirs = parameters(), parameters()
    groups = [
        {"params": [p for p in theirs if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in theirs if p.dim() == 1], "weight_decay": 0.0},
    ]
    own, other = DenseAdamW(ours, decay), torch.optim.AdamW(groups, betas=BETAS, fused=True)
    for step in range(5):
        rate = 0.1 / (step + 1)
        for group in other.param_groups:
            group["lr"] = rate
        for number, gradient in enumerate(parameters(seed=step + 2)):
            if number == step:  # one has no gradient, in each step another one
                continue
            ours[number].grad, theirs[number].grad = gradient.data.clone(), gradient.data.clone()
        own.step(rate)
        other.step()
        other.zero_grad()
        assert all(parameter.grad is None for parameter in ours)
        assert all(map(torch.equal, ours, theirs))
