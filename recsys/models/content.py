"""Item vectors from what the catalogue says of an item, for those that no training has seen.

An item's words are those of its title, its categories and its properties. Each falls into one of
COLUMNS by its hash (Weinberger et al. 2009), and ridge regression over known items maps the TF-IDF of
the columns to the trained item table (as Gantner et al. 2010 map attributes to factors). What the map
is worth is judged on known items that were held out.

Legend: n items, W columns of an item, F columns, D width.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.events.array_types import Float32Array, Int32Array, Int64Array
from recsys.models.lstm.kernels import compiled

COLUMNS = 4_096
MAX_WORDS = 64  # of an item that count
MAX_VALUE = 100  # characters of a property's value that count
HELD_OUT = 0.1  # share of the known items
ENOUGH_ITEMS = 50  # known items with content
PENALTIES = (1.0, 5.0, 25.0)
RARE = 10.0  # events at which a trained vector counts half
_WORD = re.compile(r"\w+")

Contents = Mapping[str, Int32Array]  # item id -> its columns (W,), each once


def content_columns(
    title: str | None, categories: Sequence[str], properties: Mapping[str, object]
) -> Int32Array:
    """The columns (W,) of an item's words, ascending, each once; empty where nothing is said of it.

    >>> np.intersect1d(content_columns("Red Tea", ["Food"], {}), content_columns("TEA", [], {})).size
    1
    """
    words = dict.fromkeys(_words(title, categories, properties))
    hashes = [zlib.crc32(word.encode(errors="replace")) for word in list(words)[:MAX_WORDS]]
    return np.unique(np.array(hashes, np.int64) % COLUMNS).astype(np.int32)


def _words(
    title: str | None, categories: Sequence[str], properties: Mapping[str, object]
) -> Iterator[str]:
    for category in categories:
        yield f"category {category.casefold()}"
    for name, value in properties.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str | int | float):
                yield f"{name} {str(one).casefold()[:MAX_VALUE]}"
    for word in _WORD.findall((title or "").casefold()):
        yield f"title {word}"


@dataclass(frozen=True)
class ContentMap:
    """A map from an item's content to its vector."""

    idf: Float32Array  # (F,) inverse document frequency; 0 where no known item has the column
    weights: Float32Array  # (F, D)
    mean: Float32Array  # (D,) of the known items
    explained: float = 0.0  # share of the variance of held-out items, at most 1

    def vectors(self, contents: Sequence[Int32Array]) -> Float32Array:
        """Vectors (n, D) of items with these columns; zero where the map knows none of them."""
        found = np.zeros((len(contents), len(self.mean)), np.float32)
        for at, columns in enumerate(contents):
            values = _normalised(self.idf[columns])
            if values.any():
                found[at] = values @ self.weights[columns] + self.mean
        return found

    def arrays(self) -> dict[str, Float32Array]:
        """What is stored; `from_arrays` takes it back."""
        explained = np.array([self.explained], np.float32)
        return {"idf": self.idf, "weights": self.weights, "mean": self.mean, "explained": explained}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Float32Array]) -> ContentMap:
        """Raises KeyError, or ValueError where the shapes do not fit together."""
        found = cls(
            arrays["idf"], arrays["weights"], arrays["mean"], float(arrays["explained"].item())
        )
        if found.idf.shape != (COLUMNS,) or found.weights.shape != (COLUMNS, len(found.mean)):
            raise ValueError("the content map's shapes do not fit together")
        return found


def fit_content(
    contents: Sequence[Int32Array],
    vectors: Float32Array,
    events: Int64Array,
    rng: np.random.Generator,
) -> ContentMap | None:
    """The map from `contents` of known items (n) to their trained `vectors` (n, D).

    An item counts by how many `events` (n,) it was learned from. None where the items are fewer than
    ENOUGH_ITEMS, or where held-out ones are predicted no better than by the mean vector.
    """
    kept = [at for at, columns in enumerate(contents) if len(columns) and events[at] > 0]
    if len(kept) < ENOUGH_ITEMS:
        return None
    order = rng.permutation(len(kept))
    known = _Known.of([contents[kept[at]] for at in order], vectors[kept][order])
    counts = events[kept][order]
    trust = (counts / (counts + RARE)).astype(np.float32)
    held = max(1, round(HELD_OUT * len(kept)))
    rest = _Equations.of(known, trust, held)
    errors = {one: _error(known, trust, held, rest.solved(one), rest.mean) for one in PENALTIES}
    best = min(PENALTIES, key=lambda one: errors[one])
    unexplained = _error(known, trust, held, None, rest.mean)
    if errors[best] >= unexplained:
        return None
    everything = _Equations.of(known, trust, 0)
    weights = np.zeros((COLUMNS, vectors.shape[1]), np.float32)
    weights[known.used] = everything.solved(best)
    idf = np.zeros(COLUMNS, np.float32)
    idf[known.used] = known.idf
    return ContentMap(idf, weights, everything.mean, 1.0 - errors[best] / unexplained)


@dataclass(frozen=True)
class _Known:
    """Known items one after the other, their columns numbered among those in use (U)."""

    used: Int64Array  # (U,) the columns in use
    idf: Float32Array  # (U,)
    offsets: Int64Array  # (n + 1,) where each item's columns begin
    columns: Int64Array  # numbers among `used`
    values: Float32Array  # TF-IDF, of length 1 over each item
    vectors: Float32Array  # (n, D)

    @classmethod
    def of(cls, contents: Sequence[Int32Array], vectors: Float32Array) -> _Known:
        used, columns, counts = np.unique(
            np.concatenate(contents).astype(np.int64), return_inverse=True, return_counts=True
        )
        idf = _idf(counts, len(contents))
        offsets = np.concatenate(([0], np.cumsum([len(one) for one in contents]))).astype(np.int64)
        values = np.concatenate([_normalised(one) for one in np.split(idf[columns], offsets[1:-1])])
        return cls(used.astype(np.int64), idf, offsets, columns, values, vectors)


def _idf(counts: Int64Array, items: int) -> Float32Array:
    return (np.log((1.0 + items) / (1.0 + counts)) + 1.0).astype(np.float32)


def _normalised(values: Float32Array) -> Float32Array:
    length = float(np.sqrt(np.square(values).sum()))
    return values / np.float32(length) if length else values


@dataclass(frozen=True)
class _Equations:
    """The normal equations of a weighted ridge regression of items from some number on."""

    gram: Float32Array  # (U, U)
    moments: Float32Array  # (U, D)
    mean: Float32Array  # (D,)

    @classmethod
    def of(cls, known: _Known, trust: Float32Array, first: int) -> _Equations:
        chosen = known.vectors[first:], trust[first:]
        mean = np.average(chosen[0], axis=0, weights=chosen[1]).astype(np.float32)
        used = len(known.used)
        gram = np.zeros((used, used), np.float32)
        moments = np.zeros((used, known.vectors.shape[1]), np.float32)
        _add_items(
            known.offsets,
            known.columns,
            known.values,
            known.vectors - mean,
            trust,
            first,
            gram,
            moments,
        )
        return cls(gram, moments, mean)

    def solved(self, penalty: float) -> Float32Array:
        """Weights (U, D)."""
        regular = self.gram + np.float32(penalty) * np.eye(len(self.gram), dtype=np.float32)
        return np.linalg.solve(regular, self.moments).astype(np.float32)


def _error(
    known: _Known,
    trust: Float32Array,
    held: int,
    weights: Float32Array | None,
    mean: Float32Array,
) -> float:
    """Squared error over the first `held` items; by the mean alone where there are no `weights`."""
    left = known.vectors[:held] - mean
    if weights is not None:
        for at in range(held):
            part = slice(known.offsets[at], known.offsets[at + 1])
            left[at] -= known.values[part] @ weights[known.columns[part]]
    return float(trust[:held] @ np.square(left).sum(axis=1))


@compiled
def _add_items(
    offsets: Int64Array,
    columns: Int64Array,
    values: Float32Array,
    vectors: Float32Array,
    trust: Float32Array,
    first: int,
    gram: Float32Array,
    moments: Float32Array,
) -> None:
    """Add items from number `first` on to the normal equations."""
    for item in range(first, len(offsets) - 1):
        for at in range(offsets[item], offsets[item + 1]):
            value = trust[item] * values[at]
            for other in range(offsets[item], offsets[item + 1]):
                gram[columns[at], columns[other]] += value * values[other]
            for d in range(vectors.shape[1]):
                moments[columns[at], d] += value * vectors[item, d]
