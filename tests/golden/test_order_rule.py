"""A, B -> C and D, B -> E: only a memory of two steps back gets both right."""

import numpy as np

from recsys.config import ModelSettings, TrainingSettings
from recsys.events.sequences import Histories, Sequences
from recsys.models.lstm.trainer import Trainer, train_network

A, B, C, D, E = range(2, 7)


def order_log(copies: int) -> Sequences:
    items = np.array([[A, B, C], [D, B, E]] * copies, np.int32)
    events = items.size
    return Sequences(
        offsets=np.arange(0, events + 1, 3),
        items=items.ravel(),
        event_types=np.zeros(events, np.int16),
        timestamps_us=np.zeros(events, np.int64),
        session_starts=np.zeros(events, np.bool_),
        keys=[f"s:{n}" for n in range(2 * copies)],
    )


def test_the_network_remembers_what_came_before_the_last_item():
    log = order_log(copies=64)
    settings = TrainingSettings(epochs=12, batch_events=32, learning_rate=0.01, threads=1)
    model = ModelSettings(width=16, embedding_dropout=0.0, dropout=0.0)
    trainer = Trainer(rows=7, event_types=1, max_length=10, model=model, training=settings)
    train_network(log, np.ones(log.event_count, np.float32), trainer, validate=None)
    scores = trainer.scorer().predict(Histories.from_lists([[A, B], [D, B]])).scores
    assert scores.argmax(axis=1).tolist() == [C, E]
    margin = scores[[0, 1], [C, E]] - scores[[0, 1], [E, C]]
    assert (margin > 2.0).all()


def test_swapping_the_first_items_swaps_the_answer():
    log = order_log(copies=64)
    swapped = Sequences(
        offsets=log.offsets,
        items=np.where(log.items == A, D, np.where(log.items == D, A, log.items)).astype(np.int32),
        event_types=log.event_types,
        timestamps_us=log.timestamps_us,
        session_starts=log.session_starts,
        keys=log.keys,
    )
    settings = TrainingSettings(epochs=12, batch_events=32, learning_rate=0.01, threads=1)
    model = ModelSettings(width=16, embedding_dropout=0.0, dropout=0.0)
    trainer = Trainer(rows=7, event_types=1, max_length=10, model=model, training=settings)
    train_network(swapped, np.ones(log.event_count, np.float32), trainer, validate=None)
    scores = trainer.scorer().predict(Histories.from_lists([[A, B], [D, B]])).scores
    assert scores.argmax(axis=1).tolist() == [E, C]
