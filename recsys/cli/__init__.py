"""The command line: one command a file. `main` is the console script."""

from __future__ import annotations

import sys

import typer

from recsys import __version__
from recsys.cli.visible_output import guard_terminal
from recsys.config.process import collect_rarely, keep_files_private
from recsys.errors import InputError, RecsysError

TRAINING_ONLY = (
    "torch",
    "pandas",
    "optuna",
)  # what a service is installed without: deploy/Containerfile
ARGUMENTS = (
    "NAME",
    "USER",
    "REVISION",
    "KIND",
    "URL",
    "TOPIC",
)  # those that a command itself may find unacceptable

app = typer.Typer(
    name="recsys",
    help="Order-aware recommendation from clickstreams. Start with: recsys init",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, help="Print the version."),
    debug: bool = typer.Option(
        False, "--debug", help="Show the traceback of an error; can be given anywhere."
    ),
) -> None:
    pass


def _is_usage(error: RecsysError) -> bool:
    """Whether a failure is of an option (`--engine`) or an argument (`USER`)."""
    if not isinstance(error, InputError):
        return False
    return error.field.startswith("--") or error.field in ARGUMENTS


def main() -> None:
    """Run a command; a failure is one line on stderr and exit status 1, bad usage is 2.

    An option or argument that is not acceptable is bad usage, whoever finds it out.
    """
    keep_files_private()
    collect_rarely()
    guard_terminal()
    from recsys.cli import register

    debug = "--debug" in sys.argv  # taken out here, so that it may stand behind a command too
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        register.register(app)
        app(arguments)
    except RecsysError as error:
        if debug:
            raise
        print(f"recsys: {error}", file=sys.stderr)
        sys.exit(2 if _is_usage(error) else 1)
    except ModuleNotFoundError as error:
        if debug or error.name not in TRAINING_ONLY:
            raise
        reason = f"this command needs {error.name}, which is not installed: pip install recsys"
        print(f"recsys: {reason}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        print(f"recsys: {error.strerror or type(error).__name__}{where}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("recsys: interrupted", file=sys.stderr)
        sys.exit(130)
