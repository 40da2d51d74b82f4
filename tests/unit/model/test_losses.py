import numpy as np
import torch

from recsys.model.losses import NegativeSampler, full_loss, sampled_loss

ROWS, WIDTH, P = 30, 6, 4


def case():
    generator = torch.Generator().manual_seed(5)
    states = torch.randn(P, WIDTH, generator=generator, dtype=torch.float64)
    table = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(ROWS, generator=generator, dtype=torch.float64)
    targets = torch.tensor([2, 9, 9, 29])
    return states, table, bias, targets, torch.ones(P, dtype=torch.float64)


def test_full_loss_is_minus_log_softmax_over_the_items_alone():
    states, table, bias, targets, weights = case()
    logits = (states @ table.T + bias)[:, 2:]
    expected = -(logits[range(P), targets - 2] - logits.logsumexp(1))
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        full_loss(states, table, bias, targets, weights), (expected * weights).sum()
    )


def test_sampled_sum_estimates_the_full_sum_without_bias():
    """By expectation: exp(sampled) averages to the partition function of `full_loss`."""
    states, table, bias, targets, weights = case()
    counts = np.zeros(ROWS, np.int64)
    counts[2:] = np.arange(1, ROWS - 1) ** 2
    sampler = NegativeSampler(counts, negatives=64)
    rng = np.random.default_rng(0)
    logits = (states @ table.T + bias)[:, 2:]
    partition = logits.exp().sum(1)
    positive = logits[range(P), targets - 2]
    draws = []
    for _ in range(3_000):
        negatives = sampler.draw(rng)
        one = torch.zeros(P, dtype=torch.float64)
        for p in range(P):
            loss = sampled_loss(
                states[p : p + 1],
                table,
                bias,
                targets[p : p + 1],
                weights[:1],
                torch.from_numpy(negatives),
                torch.from_numpy(sampler.log_expected(negatives)).double(),
            )
            one[p] = (loss + positive[p]).exp()
        draws.append(one)
    stack = torch.stack(draws)
    error = (stack.mean(0) - partition).abs()
    assert (error < 4 * stack.std(0) / 3_000**0.5).all()
    assert (error / partition < 0.02).all()


def test_a_negative_that_is_the_target_is_masked():
    states, table, bias, _, weights = case()
    loss = sampled_loss(
        states[:1],
        table,
        bias,
        torch.tensor([7]),
        weights[:1],
        torch.tensor([7, 7]),
        torch.zeros(2),
    )
    assert float(loss) == 0.0


def test_padding_and_unknown_are_never_drawn():
    sampler = NegativeSampler(np.array([99, 99, 1, 0, 5]), negatives=2_000)
    drawn = sampler.draw(np.random.default_rng(1))
    assert set(drawn.tolist()) == {2, 3, 4}


def test_expected_counts_are_the_mean_counts():
    counts = np.array([0, 0, 100, 1, 9])
    sampler = NegativeSampler(counts, negatives=100)
    rng = np.random.default_rng(2)
    drawn = np.bincount(np.concatenate([sampler.draw(rng) for _ in range(2_000)]), minlength=5)
    expected = np.exp(sampler.log_expected(np.array([2, 3, 4])))
    np.testing.assert_allclose(drawn[2:] / 2_000, expected, rtol=0.03)
