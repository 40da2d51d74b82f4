"""python -m jobs: the scheduler; python -m jobs run RUN_ID: one run, in this process."""

from __future__ import annotations

import sys
from pathlib import Path

from recsys.cli.common import set_up_logging
from recsys.config import load_settings
from recsys.errors import RecsysError

USAGE = "usage: python -m jobs [--config FILE] | python -m jobs run RUN_ID [--config FILE]"


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 failed, 2 bad usage."""
    config: Path | None = None
    if "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 == len(arguments):
            print(USAGE, file=sys.stderr)
            return 2
        config = Path(arguments[at + 1])
        arguments = arguments[:at] + arguments[at + 2 :]
    if arguments and (arguments[0] != "run" or len(arguments) != 2 or not arguments[1].isdigit()):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        settings = load_settings(config)
        set_up_logging(settings)
        if arguments:
            from jobs.runs import run_in_this_process

            return 0 if run_in_this_process(settings, int(arguments[1])) else 1
        from jobs.schedule import run_scheduler

        run_scheduler(settings, config)
        return 0
    except RecsysError as error:
        print(f"jobs: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
