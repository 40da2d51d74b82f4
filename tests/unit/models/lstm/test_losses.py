import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.models.lstm.losses import (
    NegativeSampler,
    accidental_hits,
    log_softmax_at,
    mix_with_copies,
)

ROWS, WIDTH, P = 30, 6, 4
TARGETS = np.array([2, 9, 9, 29])


def case():
    generator = torch.Generator().manual_seed(5)
    states = torch.randn(P, WIDTH, generator=generator, dtype=torch.float64)
    table = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(ROWS, generator=generator, dtype=torch.float64)
    return states, table, bias


def full(states, table, bias, targets=TARGETS):
    items = np.arange(2, ROWS)
    nothing = np.zeros(len(items))
    return log_softmax_at(states, table, bias, targets, items, nothing, torch.float64)


def test_the_full_softmax_is_over_the_items_alone():
    states, table, bias = case()
    logits = (states @ table.T + bias)[:, 2:]
    expected = logits[range(P), TARGETS - 2] - logits.logsumexp(1)
    torch.testing.assert_close(full(states, table, bias), expected)


def test_gradients_by_hand_are_those_of_autograd():
    states, table, bias = (part.requires_grad_() for part in case())
    negatives = np.array([3, 3, 5, 9, 11, 29])
    log_expected = np.linspace(-1.0, 0.5, 6)
    weights = torch.tensor([1.0, 0.0, 2.0, -0.5], dtype=torch.float64)
    found = log_softmax_at(states, table, bias, TARGETS, negatives, log_expected, torch.float64)
    by_hand = torch.autograd.grad((found * weights).sum(), (states, table, bias))

    targets, places = torch.from_numpy(TARGETS), torch.from_numpy(negatives)
    own = (states * table[targets]).sum(-1) + bias[targets]
    logits = states @ table[places].T + bias[places] - torch.from_numpy(log_expected)
    logits = logits.masked_fill(targets[:, None] == places[None, :], -torch.inf)
    plain = own - torch.logaddexp(logits.logsumexp(1), own)
    torch.testing.assert_close(found, plain)
    by_autograd = torch.autograd.grad((plain * weights).sum(), (states, table, bias))
    for ours, theirs in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sampled_sum_estimates_the_full_sum_without_bias():
    """By expectation: exp(own - sampled) averages to the partition function of the full softmax."""
    states, table, bias = case()
    counts = np.zeros(ROWS, np.int64)
    counts[2:] = np.arange(1, ROWS - 1) ** 2
    sampler = NegativeSampler(counts, negatives=64)
    rng = np.random.default_rng(0)
    logits = (states @ table.T + bias)[:, 2:]
    partition = logits.exp().sum(1)
    own = logits[range(P), TARGETS - 2]
    draws = []
    for _ in range(3_000):
        negatives = sampler.draw(rng)
        log_expected = sampler.log_expected(negatives).astype(np.float64)
        found = log_softmax_at(states, table, bias, TARGETS, negatives, log_expected, torch.float64)
        draws.append((own - found).exp())
    stack = torch.stack(draws)
    error = (stack.mean(0) - partition).abs()
    assert (error < 4 * stack.std(0) / 3_000**0.5).all()
    assert (error / partition < 0.02).all()


def test_a_negative_that_is_the_target_is_masked():
    states, table, bias = case()
    found = log_softmax_at(
        states[:1], table, bias, np.array([7]), np.array([7, 7]), np.zeros(2), torch.float64
    )
    assert float(found[0]) == 0.0


def test_bfloat16_products_come_close():
    states, table, bias = (part.float().requires_grad_() for part in case())
    items, nothing = np.arange(2, ROWS), np.zeros(ROWS - 2, np.float32)
    wide = log_softmax_at(states, table, bias, TARGETS, items, nothing)
    narrow = log_softmax_at(states, table, bias, TARGETS, items, nothing, torch.bfloat16)
    torch.testing.assert_close(wide, narrow, atol=0.05, rtol=0.05)
    (one,) = torch.autograd.grad(wide.sum(), (table,))
    (two,) = torch.autograd.grad(narrow.sum(), (table,))
    torch.testing.assert_close(one, two, atol=0.05, rtol=0.1)


@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=8),
    st.lists(st.integers(2, 9), min_size=1, max_size=20),
)
def test_accidental_hits_are_all_equal_pairs(targets, negatives):
    negatives = sorted(negatives)
    positions, places = accidental_hits(np.array(targets), np.array(negatives))
    expected = {(p, n) for p, t in enumerate(targets) for n, v in enumerate(negatives) if v == t}
    assert set(zip(positions.tolist(), places.tolist(), strict=True)) == expected
    assert len(positions) == len(expected)


def test_the_mixture_is_the_weighted_sum():
    generated, pointed = torch.tensor([0.2, 0.5, 0.1]), torch.tensor([0.0, 0.3, 0.9])
    gate = torch.tensor([-1e9, 0.0, 2.0])
    share = torch.sigmoid(gate)
    expected = (1 - share) * generated + share * pointed
    torch.testing.assert_close(mix_with_copies(generated.log(), pointed, gate).exp(), expected)


def test_padding_and_unknown_are_never_drawn():
    sampler = NegativeSampler(np.array([99, 99, 1, 0, 5]), negatives=2_000)
    drawn = sampler.draw(np.random.default_rng(1))
    assert set(drawn.tolist()) == {2, 3, 4}
    assert (np.diff(drawn) >= 0).all()


def test_expected_counts_are_the_mean_counts():
    counts = np.array([0, 0, 100, 1, 9])
    sampler = NegativeSampler(counts, negatives=100)
    rng = np.random.default_rng(2)
    drawn = np.bincount(np.concatenate([sampler.draw(rng) for _ in range(2_000)]), minlength=5)
    expected = np.exp(sampler.log_expected(np.array([2, 3, 4])))
    np.testing.assert_allclose(drawn[2:] / 2_000, expected, rtol=0.03)
