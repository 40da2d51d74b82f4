"""Every command of the program, by what a user types."""

import pytest
import typer
from typer.main import get_command

from recsys.cli import app
from recsys.cli.register import register


@pytest.fixture(scope="session")
def commands() -> dict[str, typer.core.TyperCommand]:
    register(app)
    found = {}

    def walk(command, path):
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                walk(child, [*path, name])
        else:
            found[" ".join(path)] = command

    walk(get_command(app), [])
    return found
