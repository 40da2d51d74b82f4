"""Damaged and foreign model files: each is refused by name, and the champion goes on answering."""

from __future__ import annotations

import pickle
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from recsys.bench.fault_stage import Fault, Stage
from recsys.errors import ModelFileError
from recsys.registry import MANIFEST, read_version
from recsys.serving.recommender import Recommender, Request
from recsys.storage import version_rows
from recsys.storage.database import Database

KINDS = ("cut", "bit", "shape", "vocabulary", "pickle", "empty", "absent", "link")


def damaged_models(stage: Stage, count: int, seed: int = 5) -> Fault:
    """Damage `count` copies of the champion and have each one served."""
    rng = random.Random(seed)  # noqa: S311
    database = Database(stage.url)
    with database.connect() as connection:
        champion = version_rows.champion(connection)
    assert champion is not None
    root = stage.registry.parent / "damaged"
    recommender = Recommender(stage.settings, database, time.monotonic)
    asked = Request(user_id="nobody", k=5)
    refused = named = answered = 0
    kinds: Counter[str] = Counter()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        kinds[kind] += 1
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(stage.registry / champion.version, root / champion.version)
        _damage(root / champion.version, kind, rng)
        try:
            read_version(root, champion.version, champion.manifest_sha256)
        except ModelFileError as error:
            refused += 1
            named += champion.version in str(error) and str(root) not in str(error)
        answer = recommender.recommend(asked, champion.data_end_us)
        answered += answer.model_version == champion.version and bool(answer.items)
    shutil.rmtree(root, ignore_errors=True)
    database.close()
    return Fault(
        "damaged and foreign model files",
        refused == named == answered == count,
        {
            "files": count,
            "refused": refused,
            "refused_by_name": named,
            "champion_answered": answered,
            "kinds": dict(kinds),
        },
    )


def _damage(folder: Path, kind: str, rng: random.Random) -> None:
    path = rng.choice([path for path in sorted(folder.iterdir()) if path.stat().st_size])
    data = path.read_bytes()
    if kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    elif kind == "bit":
        changed = bytearray(data)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    elif kind == "shape":
        path = folder / rng.choice(["network.safetensors", "items.safetensors"])
        arrays = load_arrays(path.read_bytes())
        name = rng.choice(sorted(arrays))
        arrays[name] = np.concatenate([arrays[name], arrays[name]])
        path.write_bytes(save_arrays(arrays))
    elif kind == "vocabulary":
        path = folder / "vocabulary.json"
        words = orjson.loads(path.read_bytes())
        words["item_ids"] = [f"other-{n}" for n in range(len(words["item_ids"]))]
        path.write_bytes(orjson.dumps(words))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1.0] * rng.randrange(1, 9)}))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "absent":
        path.unlink()
    else:  # a link to another of its files
        others = [one for one in sorted(folder.iterdir()) if one != path and one.name != MANIFEST]
        path.unlink()
        path.symlink_to(rng.choice(others))
