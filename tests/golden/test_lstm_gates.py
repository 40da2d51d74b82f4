"""One LSTM step worked out in NumPy from the network's own weights."""

import numpy as np
import torch

from recsys.models.lstm.batches import PaddedBatch
from recsys.models.lstm.network import BatchTensors, NextItemNetwork, channel_rows
from recsys.models.lstm.weights import NetworkShape

WIDTH = 8


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def test_each_gate_of_each_step_matches_the_network():
    torch.manual_seed(3)
    channels = channel_rows(("event_type", "gap", "session", "category"), 3, 4)
    network = NextItemNetwork(
        NetworkShape(rows=11, width=WIDTH, layers=1, max_length=5, channels=channels)
    ).double()
    network.item_categories[:] = torch.tensor([0, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    for channel in network.channels.values():
        torch.nn.init.normal_(channel.weight, std=0.3)
    network.eval()
    inputs = PaddedBatch(
        items=np.array([[4, 7, 4]]),
        event_types=np.array([[1, 2, 0]]),
        gaps=np.array([[0, 5, 9]]),
        session_starts=np.array([[1, 0, 1]]),
    )
    with torch.no_grad():
        _, y = network(BatchTensors.of(inputs, torch.device("cpu")))
        states = y[0].numpy()  # (T, D)

    table = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    w_input, w_hidden = table["body.lstm.weight_ih_l0"], table["body.lstm.weight_hh_l0"]
    bias = table["body.lstm.bias_ih_l0"] + table["body.lstm.bias_hh_l0"]
    h, c = np.zeros(WIDTH), np.zeros(WIDTH)
    for t in range(3):
        x = (
            table["items.weight"][inputs.items[0, t]]
            + table["channels.event_type.weight"][inputs.event_types[0, t]]
            + table["channels.gap.weight"][inputs.gaps[0, t]]
            + table["channels.session.weight"][inputs.session_starts[0, t]]
            + table["channels.category.weight"][table["item_categories"][inputs.items[0, t]]]
        )
        x = layer_norm(x, network.input_norm)
        gates = w_input @ x + w_hidden @ h + bias  # (4 D,) in torch's order i, f, g, o
        i, f, g, o = np.split(gates, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        y = layer_norm(h + x, network.output_norm)
        np.testing.assert_allclose(states[t], y, atol=1e-6)
    scores = network.scores(torch.from_numpy(states[-1])).detach().numpy()
    np.testing.assert_allclose(
        scores, table["items.weight"] @ states[-1] + table["item_bias"], atol=1e-6
    )
