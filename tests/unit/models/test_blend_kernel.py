import numpy as np
import pytest

from recsys.models.blend import COPY, SHARPEST, Blend, Components, blended_by_source, gate_of
from recsys.models.blend_kernel import blend_best
from recsys.models.catalogue_scan import Mask
from recsys.models.ranking import top_k

RANKERS = ("session_knn", "transitions", "trending")
ROWS = 3_000


def made_up(rng):
    """Candidates, a blend and its components, a mask; some of all of them empty, equal or ruled out."""
    rows = np.sort(rng.choice(np.arange(2, ROWS), rng.integers(1, 700), replace=False))
    scores = np.round(rng.normal(size=len(rows)) * 3, int(rng.integers(0, 6))).astype(np.float32)
    scores[rng.random(len(rows)) < rng.choice([0.0, 0.1, 1.0], p=[0.5, 0.4, 0.1])] = -np.inf
    votes = {}
    for name in rng.permutation(RANKERS)[: rng.integers(0, 4)]:
        size = int(rng.integers(0, min(len(rows), 200) + 1))
        voted = np.sort(rng.choice(rows, size, replace=False)).astype(np.int32)
        votes[name] = voted, rng.integers(0, 4, size).astype(np.float32)
    names = ["lstm", *votes]
    drawn = rng.random(len(names)) * (rng.random(len(names)) < 0.8)
    blend = Blend(
        dict(zip(names, drawn.tolist(), strict=True)),
        sharpness=float(rng.choice([0.3, 1.0])),
        gate_shift=float(rng.choice([-60.0, 0.0, 2.0])),
        recency=float(rng.choice([0.0, 0.4])),
    )
    steps = int(rng.integers(0, 12))
    shares = rng.random(steps).astype(np.float32)
    recent = (rng.random(int(rng.integers(1, ROWS + 100))) * 3).astype(np.float32)
    mask = Mask(
        rng.random(ROWS) < 0.7 if rng.random() < 0.3 else None,
        rng.integers(0, ROWS, int(rng.integers(0, 30))),
    )
    gate = np.float32(rng.choice([-1e9, -3.0, 0.5]))
    return rows, scores, votes, blend, rng.choice(rows, steps), shares, gate, recent, mask


@pytest.mark.parametrize("seed", range(400))
def test_it_is_the_blend_of_the_arrays(seed):
    rng = np.random.default_rng(seed)
    rows, scores, votes, blend, pointed, shares, gate, recent, mask = made_up(rng)
    k = int(rng.choice([0, 1, 7, 100, 2_000]))
    components = Components(
        network="lstm",
        scores=scores[None].copy(),
        pointed=np.searchsorted(rows, pointed)[None],
        shares=shares[None],
        gate=np.array([gate]),
        votes={n: [(np.searchsorted(rows, v[0]), v[1])] for n, v in votes.items()},
        recent=np.array([recent[row] if row < len(recent) else 0 for row in rows], np.float32),
    )
    parts = blended_by_source(blend, components)
    total = np.sum([part[0] for part in parts.values()], axis=0)
    mask.apply(total, rows)
    wanted = top_k(total, k, first=0)

    names = ["lstm", *votes, COPY]
    chosen, totals, sources = blend_best(
        rows,
        scores,
        recent,
        np.float32(blend.recency),
        np.float32(blend.sharpness),
        SHARPEST,
        gate_of(np.array([gate]), blend)[0],
        pointed,
        shares,
        np.array([blend.weights[name] for name in names[:-1]], np.float32),
        np.concatenate([np.empty(0, np.int32), *(v[0] for v in votes.values())]),
        np.concatenate([np.empty(0, np.float32), *(v[1] for v in votes.values())]),
        np.cumsum([0, *(len(v[0]) for v in votes.values())]),
        np.empty(0, np.bool_) if mask.allowed is None else mask.allowed,
        mask.excluded,
        k,
    )
    np.testing.assert_allclose(totals, total[wanted], rtol=1e-5, atol=1e-7)
    # Equal to the last bits of a sum, two may change places.
    for one, other in zip(chosen, wanted, strict=True):
        assert total[one] == pytest.approx(total[other], rel=1e-5, abs=1e-7)
    for at, source in zip(chosen, sources, strict=True):
        most = max(part[0][at] for part in parts.values())
        given = parts[names[source]][0][at] if names[source] in parts else 0.0
        assert given == pytest.approx(most, rel=1e-5, abs=1e-7)
