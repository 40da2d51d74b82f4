"""How far work is, told to whoever waits for it: a terminal, the log of a run, nobody."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]  # a line for people
OnRows = Callable[[str, int], None]  # a stage, and the rows of it so far
OnShare = Callable[[str, float], None]  # a stage, and how much of all is done, 0..1


def quiet(*_: object) -> None:
    """Tells nobody."""
