"""A run's memory is that of its whole family."""

import subprocess
import sys
import time

from jobs.children import Child

HOLD = "held = bytearray(b'x') * (80 * 2**20); print(flush=True); import sys; sys.stdin.read()"
PARENT = (
    "import subprocess, sys; "
    f"child = subprocess.Popen([sys.executable, '-c', {HOLD!r}], stdin=sys.stdin, stdout=sys.stdout); "
    "child.wait()"
)


def test_what_a_child_of_a_run_holds_counts():
    found = {}
    for name, code in (("own", HOLD), ("of a child", PARENT)):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            process.stdout.readline()
            child = Child(1, "retrain", process, time.monotonic())
            found[name] = child.resident_mib
            process.stdin.close()
            process.wait()
        assert child.resident_mib == 0
    assert 80 < found["own"] < 120
    assert found["own"] < found["of a child"] < 140
