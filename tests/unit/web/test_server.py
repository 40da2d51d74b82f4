"""What a worker sets up before it answers."""

import subprocess
import sys

FIRST_LIST = """
import sys
from recsys.web.server import _do_without_pandas

_do_without_pandas()
import pyarrow

assert pyarrow.array([1, 2]).to_pylist() == [1, 2]  # at which pyarrow looks for pandas
assert "pandas" not in sys.modules
"""


def test_a_workers_first_list_needs_no_pandas():
    subprocess.run([sys.executable, "-c", FIRST_LIST], check=True, timeout=60)
