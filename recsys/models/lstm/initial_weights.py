"""Initial weights of a training: a cold start's item vectors, or an older network's weights.

Legend: V vocabulary rows, D width, K = D + OVERSAMPLING.

Most items of a shop are seen a handful of times, too few to be learned from random vectors. A cold
start takes theirs from co-occurrence: the positive pointwise mutual information of items at
most WINDOW steps apart, weighted 1 / distance (Levy and Goldberg 2014: skip-gram factorises the
same), by a randomised truncated SVD (Halko, Martinsson and Tropp 2011). A vector's length is set to
the usual start's, and the axes are turned at random, so that no coordinate is special.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from recsys.events.array_types import Int64Array
from recsys.events.sequences import Sequences
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.lstm.network import NextItemNetwork
from recsys.models.lstm.trainer import Trainer

WINDOW = 2
CONTEXT_POWER = 0.75  # of the counts of contexts, as in word2vec
OVERSAMPLING = 16
ROUNDS = 3  # of the power iteration
LENGTH = 0.5
CHUNK_ROWS = 65_536
MAX_PAIRS = 8_000_000  # newest pairs taken; bounds time and memory


def start_cold(trainer: Trainer, sequences: Sequences) -> None:
    """Give the trainer's item table `cooccurrence_vectors` where there are any, if so configured."""
    settings, shape = trainer.settings, trainer.network.shape
    if not settings.neighbour_start:
        return
    vectors = cooccurrence_vectors(sequences, shape.rows, shape.width, settings.seed)
    if vectors is None:
        return
    with torch.no_grad():
        found = vectors.norm(dim=1) > 0
        trainer.network.items.weight[found] = vectors[found].to(trainer.device)


def start_from(
    trainer: Trainer, old: NextItemNetwork, rows: Int64Array, sequences: Sequences
) -> bool:
    """Give `trainer` the weights of `old`; False where the shapes are too different for that.

    rows (V,): for each row of the new table its row in the old one, or -1 for a new item, which
    starts from the mean of its neighbours in `sequences`, else of its category's items, else of all. Event type and category rows keep their codes: `old` and the
    trainer must have been given the same ones, new ones last.
    """
    network = trainer.network
    ours, theirs = network.shape, old.shape
    same = ("width", "layers", "body", "copy", "max_length")
    if any(getattr(ours, name) != getattr(theirs, name) for name in same):
        return False
    if list(ours.channels) != list(theirs.channels):
        return False
    state = {k: v.clone() for k, v in network.state_dict().items()}
    for name, weights in old.state_dict().items():
        if name in ("items.weight", "item_bias", "item_categories"):
            continue
        if name.startswith("channels."):
            state[name][: len(weights)] = weights[: len(state[name])]
        else:
            state[name] = weights.clone()
    known = torch.from_numpy(rows >= 0)
    source = torch.from_numpy(rows[rows >= 0])
    for name in ("items.weight", "item_bias"):
        state[name][known] = old.state_dict()[name][source]
    fresh = (~known).nonzero().squeeze(1)
    fresh = fresh[fresh >= FIRST_ITEM]
    if len(fresh) and bool(known[FIRST_ITEM:].any()):
        categories = network.item_categories.long()
        count = int(categories.max()) + 1
        members = known.clone()
        members[:FIRST_ITEM] = False
        for name in ("items.weight", "item_bias"):
            values = state[name][members]
            sums = torch.zeros(count, *values.shape[1:]).index_add_(0, categories[members], values)
            sizes = torch.bincount(categories[members], minlength=count)
            means = sums / sizes.clamp(min=1).view(-1, *([1] * (values.dim() - 1)))
            means[sizes == 0] = values.mean(0)
            state[name][fresh] = means[categories[fresh]]
        average_neighbours(state["items.weight"], fresh, sequences, members)
    network.load_state_dict(state)
    return True


def cooccurrence_vectors(sequences: Sequences, rows: int, width: int, seed: int) -> Tensor | None:
    """Vectors (V, D) of length LENGTH; zero for rows without a neighbour.

    None where there are too few items or pairs to factorise. Deterministic for one seed.
    """
    first, second, weights = _pairs(sequences)
    if rows < 4 * (width + OVERSAMPLING) or len(first) < rows:
        return None
    unique, places = np.unique(first * rows + second, return_inverse=True)
    together = np.bincount(places, weights)
    first, second = unique // rows, unique % rows
    totals = np.bincount(first, together, minlength=rows)
    context = totals**CONTEXT_POWER
    information = np.log(together * context.sum() / (totals[first] * context[second]))
    kept = information > 0
    if not kept.any():
        return None
    first, second = first[kept], second[kept]
    values = torch.from_numpy(information[kept].astype(np.float32))
    del unique, places, together, information, weights
    forward = _sparse(first, second, values, rows)
    order = np.lexsort((first, second))
    backward = _sparse(second[order], first[order], values[torch.from_numpy(order)], rows)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rows, width + OVERSAMPLING, generator=generator)
    basis = _orthonormal(forward @ basis)  # (V, K)
    for _ in range(ROUNDS):
        basis = _orthonormal(backward @ basis)
        basis = _orthonormal(forward @ basis)
    small = backward @ basis  # (V, K) = (basis^T M)^T
    # The small side's left factors come from a K x K problem instead of a V x K one.
    squares, turned = torch.linalg.eigh(small.T @ small)
    del small
    strongest = torch.argsort(squares, descending=True)[:width]
    strength = squares[strongest].clamp(min=0).sqrt()
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    vectors = basis @ ((turned[:, strongest] * strength.sqrt()) @ turn)  # (V, D)
    del basis
    lengths = vectors.norm(dim=1, keepdim=True)
    return vectors.mul_(torch.where(lengths > 1e-6, LENGTH / lengths.clamp(min=1e-6), 0.0))


def _orthonormal(basis: Tensor) -> Tensor:
    """An orthonormal basis of the columns of `basis` (V, K), written over it.

    By the eigenvectors of the K x K Gram matrix, twice for its accuracy: a QR factorisation would
    hold three copies of a matrix that is the largest thing of a training. Columns beyond the rank
    are zero.
    """
    for _ in range(2):
        gram = torch.zeros(basis.shape[1], basis.shape[1], dtype=torch.float64)
        for at in range(0, len(basis), CHUNK_ROWS):
            wide = basis[at : at + CHUNK_ROWS].double()
            gram += wide.T @ wide
        squares, axes = torch.linalg.eigh(gram)
        kept = squares > squares[-1] * 1e-12
        scale = torch.where(kept, squares.clamp(min=1e-300).rsqrt(), 0.0)
        turn = (axes * scale).float()
        for at in range(0, len(basis), CHUNK_ROWS):
            basis[at : at + CHUNK_ROWS] = basis[at : at + CHUNK_ROWS] @ turn
    return basis


def average_neighbours(vectors: Tensor, fresh: Tensor, sequences: Sequences, known: Tensor) -> None:
    """Set the vector of each item of `fresh` (indices) to the mean of its neighbours that are `known`.

    In place, on `vectors` (V, D); `known` is a mask (V,). The mean is scaled to its neighbours'
    mean length, as a mean of vectors is shorter than they are. Items without a known neighbour stay.
    """
    first, second, weights = _pairs(sequences)
    mine = np.zeros(len(vectors), np.bool_)
    mine[fresh.numpy()] = True
    chosen = mine[first] & known.numpy()[second]
    of, to = torch.from_numpy(first[chosen]), torch.from_numpy(second[chosen])
    if not len(of):
        return
    share = torch.from_numpy(weights[chosen])[:, None]
    places, of = torch.unique(of, return_inverse=True)
    sums = torch.zeros(len(places), vectors.shape[1]).index_add_(0, of, share * vectors[to])
    lengths = torch.zeros(len(places), 1)
    lengths.index_add_(0, of, share * vectors[to].norm(dim=1, keepdim=True))
    totals = torch.zeros(len(places), 1).index_add_(0, of, share)
    vectors[places] = sums / sums.norm(dim=1, keepdim=True).clamp(min=1e-6) * lengths / totals


def _pairs(
    sequences: Sequences,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both directions of every pair of different known items at most WINDOW steps apart."""
    sequences = sequences.newest(MAX_PAIRS // (2 * WINDOW))
    owners, items = sequences.owners(), sequences.items
    first, second, weights = [], [], []
    for distance in range(1, WINDOW + 1):
        a, b = items[:-distance], items[distance:]
        chosen = owners[distance:] == owners[:-distance]
        chosen &= (a != b) & (a >= FIRST_ITEM) & (b >= FIRST_ITEM)
        a, b = a[chosen].astype(np.int64), b[chosen].astype(np.int64)
        first += [a, b]
        second += [b, a]
        weights.append(np.full(2 * len(a), 1.0 / distance, np.float32))
    return np.concatenate(first), np.concatenate(second), np.concatenate(weights)


def _sparse(of: np.ndarray, to: np.ndarray, values: Tensor, rows: int) -> Tensor:
    """A CSR matrix (V, V) from pairs in the order of their rows."""
    starts = torch.from_numpy(np.searchsorted(of, np.arange(rows + 1)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # beta, and invariants not checked
        return torch.sparse_csr_tensor(starts, torch.from_numpy(to), values, (rows, rows))
