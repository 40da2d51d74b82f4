"""A text encoder gives new items vectors from words that no known item has, and refuses what is none."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from model2vec import StaticModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from recsys.config import ModelSettings
from recsys.errors import ConfigError
from recsys.models import text_encoder
from recsys.models.content import COLUMNS, ContentMap, fit_content, read_contents
from recsys.models.text_encoder import configured_encoder, open_text_encoder

KINDS = ("tea", "lamp", "rug")
ALIKE = {"tea": "infusion", "lamp": "lantern", "rug": "carpet"}  # never in a known item
WIDTH = 8


@dataclass(frozen=True)
class Item:
    item_id: str
    title: str | None
    categories: list[str] = field(default_factory=list)
    properties: dict[str, object] = field(default_factory=dict)


def make_model(folder, seed=1):
    """A model in which words that mean the same have nearly the same vector."""
    rng = np.random.default_rng(seed)
    words, vectors = ["[UNK]", "[PAD]"], [np.zeros(16), np.zeros(16)]
    for kind in KINDS:
        own = rng.normal(size=16)
        words += [kind, ALIKE[kind]]
        vectors += [own, own + 0.01 * rng.normal(size=16)]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Lowercase()
    StaticModel(np.array(vectors, np.float32), tokenizer).save_pretrained(folder)
    return folder


def shop(items=200):
    """Items of one kind each, and vectors (n, D) that are the kinds' own, nearly."""
    rng = np.random.default_rng(2)
    own = rng.normal(size=(len(KINDS), WIDTH))
    chosen = rng.integers(0, len(KINDS), items)
    made = [Item(f"i{n}", f"{KINDS[kind]} {n}") for n, kind in enumerate(chosen)]
    vectors = own[chosen] + 0.05 * rng.normal(size=(items, WIDTH))
    return made, vectors.astype(np.float32), own


def fitted(items, vectors, encoder):
    contents = list(read_contents(items, encoder).values())
    return fit_content(contents, vectors, np.full(len(items), 20), np.random.default_rng(7))


def test_words_that_no_known_item_has_are_read_by_what_they_mean(tmp_path):
    encoder = open_text_encoder(make_model(tmp_path))
    items, vectors, own = shop()
    content = fitted(items, vectors, encoder)
    assert content is not None and content.explained > 0.9
    new = [Item("new", None, [ALIKE["lamp"]]), Item("other", None, [], {"kind": ["Carpet", 3]})]
    told = list(read_contents(new, encoder).values())
    np.testing.assert_allclose(content.vectors(told), own[[1, 2]], atol=0.3)
    plain = fitted(items, vectors, None)
    assert not plain.vectors(list(read_contents(new).values())).any()
    again = ContentMap.from_arrays(content.arrays())
    np.testing.assert_array_equal(again.vectors(told), content.vectors(told))
    for wrong in ({"encoder": np.empty(0, np.uint8)}, {"weights": content.weights[:COLUMNS]}):
        with pytest.raises(ValueError, match="do not fit together"):
            ContentMap.from_arrays({**content.arrays(), **wrong})


def test_another_encoders_vectors_are_not_read(tmp_path):
    one = open_text_encoder(make_model(tmp_path / "one"))
    other = open_text_encoder(make_model(tmp_path / "other", seed=5))
    items, vectors, _ = shop()
    content = fitted(items, vectors, one)
    for encoder, known in ((one, True), (other, False), (None, False)):
        told = list(read_contents([Item("new", "tea")], encoder).values())
        assert content.vectors(told).any() == known
    # A map of words alone reads words alone, whatever is told beside them.
    told = list(read_contents([Item("new", "tea")], one).values())
    assert fitted(items, vectors, None).vectors(told).any()


def test_texts_become_vectors_of_length_one_or_zero(tmp_path):
    encoder = open_text_encoder(make_model(tmp_path))
    found = encoder.encode(["tea lamp", "zebra", "", "tea " * 5_000])
    assert found.dtype == np.float32 and found.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 0, 1], atol=1e-6)
    assert encoder.encode([]).shape == (0, 16)


def test_a_folder_that_holds_no_model_is_refused(tmp_path, monkeypatch):
    assert configured_encoder(ModelSettings(text_encoder=str(tmp_path))) is None  # content is off
    assert configured_encoder(ModelSettings(content=True)) is None
    good = make_model(tmp_path / "good")
    assert configured_encoder(ModelSettings(content=True, text_encoder=str(good))).width == 16
    broken = make_model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    (tmp_path / "empty").mkdir()
    for folder in (broken, tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(ConfigError, match=r"model\.text_encoder") as caught:
            open_text_encoder(folder)
        assert "Model2Vec" in str(caught.value)
    monkeypatch.setattr(text_encoder, "WIDEST", 8)
    with pytest.raises(ConfigError, match="at most 8 dimensions"):
        open_text_encoder(make_model(tmp_path / "wide"))
