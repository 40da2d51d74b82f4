"""The copy head's mixture, worked out place by place from its own weights."""

import numpy as np
import torch

from recsys.models.lstm.copy_head import CopyHead

WIDTH = 6
ITEMS = np.array([[5, 7, 5, 1, 9, 0]])  # a repeat, an unknown, and one step of padding


def head() -> CopyHead:
    torch.manual_seed(2)
    made = CopyHead(WIDTH).double()
    torch.nn.init.normal_(made.query.weight)
    return made


def case():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 6, WIDTH, generator=generator, dtype=torch.float64)
    y = torch.randn(1, 6, WIDTH, generator=generator, dtype=torch.float64)
    return x, y


def by_hand(copy: CopyHead, x, y, step: int, current_may_recur: bool):
    """{place: share}, and the gate's logit, at `step`."""
    weights = {name: value.detach().numpy() for name, value in copy.named_parameters()}
    query = weights["query.weight"] @ y[0, step].numpy() + weights["query.bias"]
    logits = {}
    for place in range(step + 1):
        item = ITEMS[0, place]
        if item < 2 or (item == ITEMS[0, step] and not current_may_recur):
            continue
        key = weights["key.weight"] @ x[0, place].numpy() + weights["key.bias"]
        logits[place] = query @ key / 8.0 + weights["distance"][step - place]
    total = sum(np.exp(value) for value in logits.values())
    gate = weights["gate.weight"][0] @ y[0, step].numpy() + weights["gate.bias"][0]
    return {place: np.exp(value) / total for place, value in logits.items()}, gate


def test_shares_and_gate_match_at_every_step():
    copy, (x, y) = head(), case()
    for current_may_recur in (True, False):
        with torch.no_grad():
            shares, gate = copy(x, y, torch.from_numpy(ITEMS), current_may_recur)
        for step in range(5):
            expected, logit = by_hand(copy, x, y, step, current_may_recur)
            row = np.zeros(6)
            for place, share in expected.items():
                row[place] = share
            np.testing.assert_allclose(shares[0, step], row, atol=1e-12)
            if expected:
                np.testing.assert_allclose(gate[0, step], logit, atol=1e-12)
            else:
                assert torch.sigmoid(gate[0, step]) == 0  # nothing to copy at the first step


def test_the_last_step_alone_equals_all_steps():
    copy, (x, y) = head(), case()
    items = torch.from_numpy(ITEMS)
    for last in range(6):
        for current_may_recur in (True, False):
            with torch.no_grad():
                shares, gate = copy(x, y, items, current_may_recur)
                own, own_gate = copy.last(
                    x, y[:, last], items, torch.tensor([last]), current_may_recur
                )
            torch.testing.assert_close(own[0], shares[0, last])
            torch.testing.assert_close(own_gate[0], gate[0, last])
