from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.config import ModelSettings, TrainingSettings
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.sequences import Histories, Sequences
from recsys.models.lstm.bodies import BODIES, ByteDropout
from recsys.models.lstm.initial_weights import LENGTH, cooccurrence_vectors, start_from
from recsys.models.lstm.optimizer import Rate, choose_device, choose_product, gemm_gflops
from recsys.models.lstm.trainer import Trainer, train_network

SETTINGS = TrainingSettings(
    epochs=2, batch_events=64, threads=1, negatives=16, full_softmax_items=1
)


def log(rows: int, count: int, seed: int = 0, step: int = 1) -> Sequences:
    """Walks along a circle of items, `step` at a time."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, rows - 2, count)
    items = (starts[:, None] + step * np.arange(6)) % (rows - 2) + 2
    events = items.size
    heads = np.zeros(events, np.bool_)
    heads[::6] = True
    return Sequences(
        offsets=np.arange(0, events + 1, 6),
        items=items.ravel().astype(np.int32),
        event_types=np.ones(events, np.int16),
        timestamps_us=np.arange(events, dtype=np.int64) * 1_000_000,
        session_starts=heads,
        keys=[f"u:{n}" for n in range(count)],
    )


NOTHING_SEEN = log(30, 1).keep(np.zeros(6, np.bool_))


@pytest.mark.parametrize("body", BODIES)
def test_every_body_learns_under_the_same_loop_and_sees_no_future(body):
    sequences = log(30, 200)
    training = SETTINGS.model_copy(update={"epochs": 12, "learning_rate": 0.01})
    model = ModelSettings(width=16, network=body, embedding_dropout=0.0, dropout=0.0)
    trainer = Trainer(30, 2, 10, model, training)
    train_network(sequences, np.ones(sequences.event_count, np.float32), trainer, None)
    scorer = trainer.scorer()
    found = scorer.predict(Histories.from_lists([[5, 6, 7], [20, 21], [29, 2, 3, 4]]))
    assert found.scores.argmax(1).tolist() == [8, 22, 5]
    # What comes later changes nothing before it: pad on the right with other items.
    from recsys.models.lstm.batches import pad
    from recsys.models.lstm.network import BatchTensors

    short, long = (pad(Histories.from_lists([h]), len(h)) for h in ([5, 9, 3], [5, 9, 3, 17, 4]))
    trainer.network.eval()
    with torch.no_grad():
        _, one = trainer.network(BatchTensors.of(short, torch.device("cpu")))
        _, two = trainer.network(BatchTensors.of(long, torch.device("cpu")))
    torch.testing.assert_close(one, two[:, :3], atol=1e-5, rtol=1e-5)


def test_neighbours_start_close_together():
    vectors = cooccurrence_vectors(log(400, 3_000), 400, 16, seed=1)
    assert torch.equal(vectors, cooccurrence_vectors(log(400, 3_000), 400, 16, seed=1))
    torch.testing.assert_close(vectors[2:].norm(dim=1), torch.full((398,), LENGTH))
    assert (vectors[:2] == 0).all()
    cosine = vectors[2:] @ vectors[2:].T / LENGTH**2
    near = cosine.diagonal(1).mean()
    far = cosine[torch.arange(398), (torch.arange(398) + 100) % 398].mean()
    assert near > 0.5 > far + 0.3


def test_too_little_for_a_factorisation_is_said_by_none():
    assert cooccurrence_vectors(log(30, 5), 30, 16, seed=1) is None


def test_warm_start_keeps_known_items_and_gives_new_ones_their_category_mean():
    categories = np.array([0, 0, 1, 1, 2, 2], np.int32)
    old = Trainer(6, 2, 10, ModelSettings(width=8), SETTINGS, item_categories=categories)
    grown = np.array([0, 0, 1, 1, 2, 2, 1, 2, 0, 3], np.int32)
    new = Trainer(10, 3, 10, ModelSettings(width=8), SETTINGS, item_categories=grown)
    rows = np.array([0, 1, 2, 3, 4, 5, -1, -1, -1, -1])
    assert start_from(new, old.network, rows, NOTHING_SEEN)
    ours, theirs = new.network.items.weight, old.network.items.weight
    assert torch.equal(ours[:6], theirs)
    torch.testing.assert_close(ours[6], theirs[2:4].mean(0))
    torch.testing.assert_close(ours[7], theirs[4:6].mean(0))
    for unknown in (8, 9):  # no category, and one that no known item has
        torch.testing.assert_close(ours[unknown], theirs[2:6].mean(0))
    assert torch.equal(new.network.body.lstm.weight_hh_l0, old.network.body.lstm.weight_hh_l0)
    channel = new.network.channels["event_type"].weight
    assert torch.equal(channel[:2], old.network.channels["event_type"].weight)
    assert channel.shape[0] == 3


def test_warm_start_puts_new_items_among_what_stood_beside_them():
    old = Trainer(6, 2, 10, ModelSettings(width=8), SETTINGS)
    new = Trainer(8, 2, 10, ModelSettings(width=8), SETTINGS)
    seen = replace(
        NOTHING_SEEN,
        offsets=np.array([0, 3, 5]),
        items=np.array([2, 6, 3, 6, 3], np.int32),
        timestamps_us=np.arange(5),
        keys=["a", "b"],
    )  # 7 stood beside nothing
    rows = np.array([0, 1, 2, 3, 4, 5, -1, -1])
    assert start_from(new, old.network, rows, seen)
    ours, theirs = new.network.items.weight.detach(), old.network.items.weight.detach()
    middle = theirs[2] + 2 * theirs[3]  # each beside it once a sequence, 3 in both
    length = (theirs[2].norm() + 2 * theirs[3].norm()) / 3
    torch.testing.assert_close(ours[6], middle / middle.norm() * length)
    torch.testing.assert_close(ours[7], theirs[2:6].mean(0))
    assert torch.equal(ours[:6], theirs)


def test_another_shape_is_not_started_from():
    old = Trainer(6, 2, 10, ModelSettings(width=8), SETTINGS)
    for model in (ModelSettings(width=16), ModelSettings(width=8, network="gru")):
        assert not start_from(
            Trainer(6, 2, 10, model, SETTINGS), old.network, np.arange(6), NOTHING_SEEN
        )


def test_what_may_not_recur_is_neither_learned_nor_ranked():
    sequences = log(30, 50)
    model = ModelSettings(width=8)
    barred = Trainer(30, 2, 10, model, SETTINGS, RepeatPolicy(False, False))
    assert barred.network.copy_head is None
    open_ = Trainer(30, 2, 10, model, SETTINGS, RepeatPolicy(False, True))
    train_network(sequences, np.ones(sequences.event_count, np.float32), open_, None)
    said = open_.scorer().predict(Histories.from_lists([[5, 6, 7, 6]]))
    assert np.isneginf(said.scores[0, 6])
    assert np.isfinite(said.scores[0, [5, 7]]).all()
    assert said.shares[0, [1, 3]].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(said.shares.sum(), 1.0, rtol=1e-5)


def test_bfloat16_trains_where_it_is_asked_for():
    sequences = log(30, 200)
    training = SETTINGS.model_copy(update={"precision": "bfloat16", "epochs": 6})
    trainer = Trainer(30, 2, 10, ModelSettings(width=16), training)
    assert trainer.product == torch.bfloat16
    curve = train_network(sequences, np.ones(sequences.event_count, np.float32), trainer, None)
    assert curve.epochs[-1].loss < 0.9 * curve.epochs[0].loss
    assert trainer.network.items.weight.dtype == torch.float32


def test_device_and_precision_are_taken_at_their_word():
    cpu = choose_device("cpu")
    assert choose_product("float32", cpu) == torch.float32
    assert choose_product("auto", cpu) in (torch.float32, torch.bfloat16)
    assert gemm_gflops(torch.float32, 128, 1) > 0


def test_byte_dropout_keeps_the_mean_and_the_share():
    dropout = ByteDropout(0.6)
    x = torch.ones(200_000)
    assert torch.equal(dropout.eval()(x), x)
    with pytest.raises(RuntimeError, match="random generator"):
        dropout.train()(x)
    dropout.rng = np.random.default_rng(0)
    found = dropout(x)
    assert abs(float((found == 0).float().mean()) - 0.6) < 0.01
    assert abs(float(found.mean()) - 1.0) < 0.02


def test_the_rate_rises_then_falls_to_a_hundredth():
    rate = Rate(1.0, 10, 110)
    rates = [rate.next() for _ in range(110)]
    assert rates[:2] == [0.1, 0.2]
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert rates[9:] == sorted(rates[9:], reverse=True)
