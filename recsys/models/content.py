"""Item vectors from what the catalogue says of an item, for those that no training has seen.

An item's words are those of its title, its categories and its properties. Each falls into one of
COLUMNS by its hash (Weinberger et al. 2009). Where a text encoder is configured it reads the same words
as one text. Ridge regression over known items maps the TF-IDF of the columns and the encoder's vector to
the trained item table (as Gantner et al. 2010 map attributes to factors). What the map is worth is judged
on known items that were held out.

Legend: n items, W columns of an item, F columns, E encoder's width, D width.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from recsys.events.array_types import AnyArray, Float32Array, Int32Array, Int64Array
from recsys.models.lstm.kernels import compiled
from recsys.models.text_encoder import TextEncoder

COLUMNS = 4_096
MAX_WORDS = 64  # of an item that count
MAX_VALUE = 100  # characters of a property's value that count
HELD_OUT = 0.1  # share of the known items
ENOUGH_ITEMS = 50  # known items with content
PENALTIES = (1.0, 5.0, 25.0)
RARE = 10.0  # events at which a trained vector counts half
_WORD = re.compile(r"\w+")

NO_VECTOR: Float32Array = np.empty(0, np.float32)


class ItemContent(NamedTuple):
    """What the catalogue says of an item."""

    columns: Int32Array  # (W,) of its words, each once
    vector: Float32Array = NO_VECTOR  # (E,) by the encoder; none without one
    encoder: bytes = b""  # its digest

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said of it."""
        return len(self.columns) == 0


NOTHING = ItemContent(np.empty(0, np.int32))
Contents = Mapping[str, ItemContent]  # by item id


class Described(Protocol):
    """An item of the catalogue."""

    @property
    def item_id(self) -> str: ...
    @property
    def title(self) -> str | None: ...
    @property
    def categories(self) -> Sequence[str]: ...
    @property
    def properties(self) -> Mapping[str, object]: ...


def read_contents(
    items: Iterable[Described], encoder: TextEncoder | None = None
) -> dict[str, ItemContent]:
    """What is said of `items`, in their order."""
    given = list(items)
    columns = [content_columns(one.title, one.categories, one.properties) for one in given]
    if encoder is None:
        return {one.item_id: ItemContent(at) for one, at in zip(given, columns, strict=True)}
    vectors = encoder.encode([_text(one) for one in given])
    return {
        one.item_id: ItemContent(at, vector, encoder.digest)
        for one, at, vector in zip(given, columns, vectors, strict=True)
    }


def _text(item: Described) -> str:
    """An item's words as one text: its title, its categories, its properties' values."""
    values = [text for _, text in _values(item.properties)]
    return ". ".join([item.title or "", *item.categories, *values])


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
    for name, value in _values(properties):
        yield f"{name} {value.casefold()}"
    for word in _WORD.findall((title or "").casefold()):
        yield f"title {word}"


def _values(properties: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Names of properties and the texts and numbers that are their values."""
    for name, value in properties.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str | int | float):
                yield name, str(one)[:MAX_VALUE]


@dataclass(frozen=True)
class ContentMap:
    """A map from an item's content to its vector."""

    idf: Float32Array  # (F,) inverse document frequency; 0 where no known item has the column
    weights: Float32Array  # (F + E, D)
    mean: Float32Array  # (D,) of the known items
    explained: float = 0.0  # share of the variance of held-out items, at most 1
    encoder: bytes = b""  # the digest of the text encoder whose vectors it reads, if any

    def vectors(self, contents: Sequence[ItemContent]) -> Float32Array:
        """Vectors (n, D) of items; zero where the map knows no word of one, or where another encoder
        has read it.
        """
        found = np.zeros((len(contents), len(self.mean)), np.float32)
        for at, content in enumerate(contents):
            values = _normalised(self.idf[content.columns])
            vector = content.vector if self.encoder else NO_VECTOR
            if content.encoder != self.encoder and self.encoder:
                continue
            if values.any() or vector.any():
                found[at] = values @ self.weights[content.columns] + self.mean
                if len(vector):
                    found[at] += vector @ self.weights[COLUMNS:]
        return found

    def arrays(self) -> dict[str, AnyArray]:
        """What is stored; `from_arrays` takes it back."""
        return {
            "idf": self.idf,
            "weights": self.weights,
            "mean": self.mean,
            "explained": np.array([self.explained], np.float32),
            "encoder": np.frombuffer(self.encoder, np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> ContentMap:
        """Raises KeyError, or ValueError where the shapes do not fit together."""
        encoder = arrays.get("encoder", np.empty(0, np.uint8)).tobytes()
        explained = float(arrays["explained"].item())
        found = cls(arrays["idf"], arrays["weights"], arrays["mean"], explained, encoder)
        rows, width = found.weights.shape
        if found.idf.shape != (COLUMNS,) or width != len(found.mean):
            raise ValueError("the content map's shapes do not fit together")
        if rows < COLUMNS or (rows > COLUMNS) != bool(encoder):
            raise ValueError("the content map's shapes do not fit together")
        return found


def fit_content(
    contents: Sequence[ItemContent],
    vectors: Float32Array,
    events: Int64Array,
    rng: np.random.Generator,
) -> ContentMap | None:
    """The map from `contents` of known items (n) to their trained `vectors` (n, D).

    An item counts by how many `events` (n,) it was learned from. None where the items are fewer than
    ENOUGH_ITEMS, or where held-out ones are predicted no better than by the mean vector.
    """
    kept = [at for at, one in enumerate(contents) if not one.is_empty and events[at] > 0]
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
    first = contents[kept[0]]
    weights = np.zeros((COLUMNS + len(first.vector), vectors.shape[1]), np.float32)
    weights[known.used] = everything.solved(best)
    idf = np.zeros(COLUMNS, np.float32)
    words = known.used < COLUMNS
    idf[known.used[words]] = known.idf[words]
    explained = 1.0 - errors[best] / unexplained
    return ContentMap(idf, weights, everything.mean, explained, first.encoder)


@dataclass(frozen=True)
class _Known:
    """Known items one after the other, their columns numbered among those in use (U).

    The encoder's dimensions are columns too, from COLUMNS on, and each item has all of them.
    """

    used: Int64Array  # (U,) the columns in use
    idf: Float32Array  # (U,); of the encoder's dimensions 1
    offsets: Int64Array  # (n + 1,) where each item's columns begin
    columns: Int64Array  # numbers among `used`
    values: Float32Array  # TF-IDF, of length 1 over each item; the encoder's vector likewise
    vectors: Float32Array  # (n, D)

    @classmethod
    def of(cls, contents: Sequence[ItemContent], vectors: Float32Array) -> _Known:
        dense = COLUMNS + np.arange(len(contents[0].vector))
        wanted = [np.concatenate((one.columns, dense)).astype(np.int64) for one in contents]
        used, columns, counts = np.unique(
            np.concatenate(wanted), return_inverse=True, return_counts=True
        )
        idf = np.where(used < COLUMNS, _idf(counts, len(contents)), np.float32(1))
        offsets = np.concatenate(([0], np.cumsum([len(one) for one in wanted]))).astype(np.int64)
        values = []
        for one, weights in zip(contents, np.split(idf[columns], offsets[1:-1]), strict=True):
            values += [_normalised(weights[: len(one.columns)]), one.vector]
        return cls(used, idf, offsets, columns, np.concatenate(values), vectors)


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
