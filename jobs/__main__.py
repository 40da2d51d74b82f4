"""python -m jobs: the scheduler; python -m jobs run RUN_ID: one run, in this process."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recsys.cli.terminal import set_up_logging
from recsys.config import load_settings
from recsys.config.process import collect_rarely, keep_files_private
from recsys.errors import RecsysError

USAGE = (
    "usage: python -m jobs [--config FILE] | python -m jobs run RUN_ID [--token N] [--config FILE]"
)


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 failed, 2 bad usage."""
    keep_files_private()
    collect_rarely()
    parser = argparse.ArgumentParser("jobs", usage=USAGE.removeprefix("usage: "))
    parser.add_argument("--config", type=Path)
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run")
    run.add_argument("run_id", type=int)
    run.add_argument("--token", type=int)
    run.add_argument("--config", type=Path)
    try:
        given = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        settings = load_settings(given.config)
        set_up_logging(settings)
        if given.command == "run":
            from jobs.runs import run_in_this_process
            from recsys import tracing

            tracing.start(settings)
            return 0 if run_in_this_process(settings, given.run_id, given.token) else 1
        from jobs.schedule import run_scheduler

        run_scheduler(settings, given.config)
        return 0
    except RecsysError as error:
        print(f"jobs: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
