import numpy as np
import pytest
import torch
from safetensors.numpy import load

from recsys.config import ModelSettings, TrainingSettings
from recsys.errors import ModelFileError, NotEnoughDataError, TrainingError
from recsys.events.sequences import Histories, Sequences
from recsys.models.lstm.batch_scorer import BatchScorer
from recsys.models.lstm.network import as_module
from recsys.models.lstm.trainer import Trainer, final_pass, train_network
from recsys.models.lstm.weights import network_bytes, shape_plain, stored_network
from recsys.registry.array_files import mapped_arrays

MODEL = ModelSettings(width=12, embedding_dropout=0.1, dropout=0.1)
ROWS = 40


def random_log(seed: int = 0, count: int = 60) -> Sequences:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 15, count)
    events = int(lengths.sum())
    return Sequences(
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        items=rng.integers(2, ROWS, events).astype(np.int32),
        event_types=rng.integers(0, 3, events).astype(np.int16),
        timestamps_us=np.sort(rng.integers(1, 10**12, events)),
        session_starts=rng.random(events) < 0.2,
        keys=[f"u:{n}" for n in range(count)],
    )


def trained(full: bool, seed: int = 1, epochs: int = 3, validate=None) -> Trainer:
    log = random_log()
    training = TrainingSettings(
        epochs=epochs,
        seed=seed,
        batch_events=64,
        threads=1,
        negatives=16,
        full_softmax_items=10_000 if full else 1,
    )
    trainer = Trainer(ROWS, 3, 8, MODEL, training)
    train_network(log, np.ones(log.event_count, np.float32), trainer, validate)
    return trainer


@pytest.mark.parametrize("full", [True, False])
def test_same_seed_same_weights_another_seed_others(full):
    first, second, other = trained(full), trained(full), trained(full, seed=2)
    one, two = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["items.weight"], other.network.state_dict()["items.weight"])


@pytest.mark.parametrize("full", [True, False])
def test_the_loss_falls(full):
    log = random_log()
    training = TrainingSettings(
        epochs=30, batch_events=64, threads=1, negatives=16, full_softmax_items=10**4 if full else 1
    )
    trainer = Trainer(ROWS, 3, 8, MODEL, training)
    curve = train_network(log, np.ones(log.event_count, np.float32), trainer, None)
    assert curve.epochs[-1].loss < 0.9 * curve.epochs[0].loss
    assert len(curve.epochs) == 30


def test_batch_equals_single_and_padding_changes_nothing():
    scorer = trained(True).scorer()
    log = random_log(seed=9, count=25)
    together = scorer.predict(log.histories())
    for number in range(len(log)):
        alone = scorer.predict(log.histories().select(np.array([number])))
        np.testing.assert_allclose(together.scores[number], alone.scores[0], atol=1e-5)
        np.testing.assert_allclose(together.gate[number], alone.gate[0], atol=1e-5)
        length = alone.shares.shape[1]
        np.testing.assert_allclose(together.shares[number, :length], alone.shares[0], atol=1e-5)
        assert (together.shares[number, length:] == 0).all()
    assert np.isneginf(together.scores[:, :2]).all()
    assert np.isfinite(together.scores[:, 2:]).all()


def test_only_the_newest_max_length_events_count():
    scorer = trained(True).scorer()
    long = list(range(2, 20))
    scores = scorer.predict(Histories.from_lists([long, long[-8:], [39, *long[-8:]], []])).scores
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    np.testing.assert_allclose(scores[2], scores[1], atol=1e-5)


def test_saved_and_loaded_scores_are_identical():
    trainer = trained(False)
    weights = {name: array.copy() for name, array in load(network_bytes(trainer.network)).items()}
    network = as_module(stored_network(weights, shape_plain(trainer.network)))
    histories = random_log(seed=4).histories()
    before, after = (
        trainer.scorer().predict(histories),
        BatchScorer(network, 8).predict(histories),
    )
    assert np.array_equal(before.scores, after.scores)
    assert np.array_equal(before.shares, after.shares)


@pytest.mark.parametrize("damage", ["cut", "shape", "foreign", "nan"])
def test_a_damaged_file_is_refused(damage, tmp_path):
    network = trained(True, epochs=1).network
    shape = shape_plain(network)
    if damage == "nan":
        with torch.no_grad():
            network.body.lstm.weight_hh_l0[0, 0] = torch.nan
    data = network_bytes(network)
    if damage == "cut":
        data = data[: len(data) // 2]
    if damage == "foreign":
        data = b"\x80\x04\x95 not a model"
    if damage == "shape":
        shape["width"] = 16
    path = tmp_path / "network.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError):
        stored_network(mapped_arrays(path), shape)


def test_early_stop_keeps_the_best_epoch():
    figures = iter([0.1, 0.5, 0.3, 0.2, 0.9])
    kept = {}

    def validate(scorer):
        figure = next(figures)
        kept[figure] = scorer.network.items.weight.detach().clone()
        return figure

    log = random_log()
    training = TrainingSettings(epochs=5, patience=2, batch_events=64, threads=1)
    trainer = Trainer(ROWS, 3, 8, MODEL, training)
    curve = train_network(log, np.ones(log.event_count, np.float32), trainer, validate)
    assert [record.validation for record in curve.epochs] == [0.1, 0.5, 0.3, 0.2]
    assert curve.best_epoch == 2
    assert torch.equal(trainer.network.items.weight, kept[0.5])


def test_a_rows_step_touches_only_the_rows_in_use():
    training = TrainingSettings(batch_events=64, threads=1, negatives=2, full_softmax_items=1)
    trainer = Trainer(1_000, 3, 8, MODEL, training)
    before = trainer.network.items.weight.detach().clone()
    log = random_log()  # items below 40
    final_pass(log, np.ones(log.event_count, np.float32), trainer, epochs=1)
    changed = (trainer.network.items.weight != before).any(1).sum()
    assert 38 <= changed < 400  # of 1,000 rows


def test_nothing_to_learn_from_is_said():
    log = random_log(count=3)
    heads = np.zeros(log.event_count, np.bool_)
    heads[log.offsets[:-1]] = True
    trainer = Trainer(ROWS, 3, 8, MODEL, TrainingSettings(threads=1))
    with pytest.raises(NotEnoughDataError):
        train_network(log.keep(heads), np.ones(3, np.float32), trainer, None)


def test_a_loss_that_is_no_number_stops_training():
    log = random_log()
    trainer = Trainer(ROWS, 3, 8, MODEL, TrainingSettings(threads=1, batch_events=64))
    with torch.no_grad():
        trainer.network.item_bias[5] = torch.nan
    with pytest.raises(TrainingError, match="loss became nan"):
        train_network(log, np.ones(log.event_count, np.float32), trainer, None)
