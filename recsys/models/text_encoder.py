"""A sentence encoder for what the catalogue says of items: a Model2Vec model in a folder on this machine.

Such a model is a table of word vectors (Tulkens and van Dongen 2024): it runs on numpy, takes
microseconds a text, and is never downloaded here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from recsys.config import ModelSettings
from recsys.errors import ConfigError, MissingExtraError
from recsys.events.array_types import Float32Array

FIELD = "model.text_encoder"
WEIGHTS = "model.safetensors"
MAX_TEXT = 2_000  # characters of a text that are read
WIDEST = 1_024  # dimensions of a vector


@dataclass(frozen=True)
class TextEncoder:
    """Texts -> vectors. Two are the same where their digests are."""

    model: Any  # model2vec.StaticModel
    digest: bytes  # SHA-256 of its weights

    @property
    def width(self) -> int:
        return int(self.model.dim)

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """Vectors (n, E) of length 1, or of zeros where the model knows no word of a text."""
        if not texts:
            return np.zeros((0, self.width), np.float32)
        cut = [text[:MAX_TEXT] for text in texts]
        found = np.asarray(self.model.encode(cut, use_multiprocessing=False), np.float32)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.where(lengths > 0, lengths, 1), np.float32)


def configured_encoder(model: ModelSettings) -> TextEncoder | None:
    """The encoder of the settings, None where they name none. Raises as `open_text_encoder`."""
    if not model.content or not model.text_encoder:
        return None
    return open_text_encoder(Path(model.text_encoder))


@lru_cache(maxsize=2)
def open_text_encoder(folder: Path) -> TextEncoder:
    """The encoder of `folder`, read once a process.

    Raises ConfigError where the folder holds none, MissingExtraError without the extra `text`.
    """
    weights = folder / WEIGHTS
    expected = (
        f"expected a folder with a Model2Vec model: {WEIGHTS}, tokenizer.json and config.json"
    )
    if not weights.is_file():  # else the library would ask its hub for one of that name
        raise ConfigError(FIELD, str(folder), expected)
    try:
        from model2vec import StaticModel
    except ImportError:
        raise MissingExtraError("text", f"for {FIELD}") from None
    try:
        model = StaticModel.from_pretrained(str(folder))
        digest = hashlib.sha256(weights.read_bytes()).digest()
    except Exception as error:  # whatever the files hold, of the library or of those below it
        raise ConfigError(FIELD, str(folder), f"{expected} ({type(error).__name__})") from None
    if not 1 <= model.dim <= WIDEST:
        raise ConfigError(FIELD, str(folder), f"expected at most {WIDEST:,} dimensions")
    return TextEncoder(model, digest)
