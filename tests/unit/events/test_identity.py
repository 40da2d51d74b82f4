import re
from concurrent.futures import ThreadPoolExecutor

from recsys.events.identity import AT_ONCE, RandomIds


def test_names_of_many_threads_differ_and_are_safe_in_addresses():
    names = RandomIds()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: names(), range(3 * AT_ONCE)))
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", name) for name in found)
