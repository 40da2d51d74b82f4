"""Damaged and foreign model files: each is refused by name, and the champion goes on answering."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from bench.drills.fault_stage import Fault, Stage
from recsys.errors import ModelFileError
from recsys.registry import MANIFEST, read_version
from recsys.serving import answering
from recsys.serving.answers import Request
from recsys.serving.recommender import Recommender
from recsys.storage.engine.database import Database
from recsys.storage.entities import version_rows
from recsys.storage.entities.version_rows import VersionRow

KINDS = ("cut", "bit", "shape", "vocabulary", "pickle", "empty", "absent", "link")
FORGED = ("shape", "vocabulary", "pickle")  # also with hashes that fit what was put in


def damaged_models(stage: Stage, count: int, seed: int = 5) -> Fault:
    """Promote `count` damaged copies of the champion, one after the other.

    A service that runs must go on with the champion, one that starts must begin with it.
    """
    rng = random.Random(seed)  # noqa: S311
    database = Database(stage.url)
    with database.connect() as connection:
        champion = version_rows.champion(connection)
    assert champion is not None
    clock = map(float, itertools.count(step=3_600)).__next__  # so that each request looks again
    running = Recommender(stage.settings, database, clock)
    asked = Request(user_id="nobody", k=5)
    refused = named = answered = 0
    kinds: Counter[str] = Counter()
    chosen = [*((kind, False) for kind in KINDS), *((kind, True) for kind in FORGED)]
    for number in range(count):
        kind, forged = chosen[number % len(chosen)]
        kinds[f"{kind}, hashes forged" if forged else kind] += 1
        copy = _promoted_copy(stage.registry, database, champion, number, kind, forged, rng)
        try:
            read_version(stage.registry, copy.version, copy.manifest_sha256)
        except ModelFileError as error:
            refused += 1
            named += copy.version in str(error) and str(stage.registry) not in str(error)
        starting = Recommender(stage.settings, database, clock)
        answers = [
            answering.recommend(one, asked, champion.data_end_us) for one in (running, starting)
        ]
        answered += all(a.model_version == champion.version and a.items for a in answers)
        with database.begin() as connection:
            version_rows.roll_back(connection, number, "bench", "damaged")
        shutil.rmtree(stage.registry / copy.version)
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


def _promoted_copy(
    root: Path,
    database: Database,
    champion: VersionRow,
    number: int,
    kind: str,
    forged: bool,
    rng: random.Random,
) -> VersionRow:
    """A copy of the champion as a version of its own, damaged, and promoted."""
    version = f"20300101-{number:06d}-abcdef"
    folder = root / version
    shutil.copytree(root / champion.version, folder)
    manifest = orjson.loads((folder / MANIFEST).read_bytes()) | {"version": version}
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest))
    digest = _sha256(folder / MANIFEST)
    _damage(folder, kind, rng, of=list(manifest["files"]) if forged else None)
    if forged:
        for name, said in manifest["files"].items():
            said |= {"sha256": _sha256(folder / name), "bytes": (folder / name).stat().st_size}
        (folder / MANIFEST).write_bytes(orjson.dumps(manifest))
        digest = _sha256(folder / MANIFEST)
    row = replace(champion, version=version, manifest_sha256=digest)
    with database.begin() as connection:
        version_rows.add_version(connection, row)
        version_rows.deploy(connection, version, number, "bench", "damaged")
    return row


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _damage(folder: Path, kind: str, rng: random.Random, of: Sequence[str] | None) -> None:
    """`of`: the files to choose from; all of them where it is None."""
    names = sorted(path.name for path in folder.iterdir()) if of is None else sorted(of)
    path = folder / rng.choice([name for name in names if (folder / name).stat().st_size])
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
        more = len(words["item_ids"]) + (of is not None)  # of the same length the hash alone tells
        words["item_ids"] = [f"other-{n}" for n in range(more)]
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
