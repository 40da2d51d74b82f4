import random
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from recsys.events.identity import AT_ONCE, MANY_TEXTS, RandomIds, hash_texts


def test_names_of_many_threads_differ_and_are_safe_in_addresses():
    names = RandomIds()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: names(), range(3 * AT_ONCE)))
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", name) for name in found)


def test_texts_are_hashed_as_pandas_does():
    draw = random.Random(5)
    lengths = [0, 1, 6, 7, 8, 9, 15, 16, 17, 255, 256, 257, *range(18, 60)]
    texts = ["".join(draw.choices("abé漢😀:u", k=length)) for length in lengths]
    many = texts * (MANY_TEXTS // len(texts) + 1)
    values = np.empty(len(texts), object)
    values[:] = texts
    wanted = pd.util.hash_array(values, categorize=False) & ~np.uint64(3) | np.uint64(1)
    assert [int(hash_texts([text])[0]) for text in texts] == wanted.tolist()
    assert hash_texts(texts).tolist() == wanted.tolist()
    assert hash_texts(many)[: len(texts)].tolist() == wanted.tolist()
    assert hash_texts([]).tolist() == []
    keys = [prefix + text for prefix in ("s:", "u:s:") for text in texts]
    assert (hash_texts(keys) & np.uint64(3)).tolist() == [3] * len(texts) + [1] * len(texts)
