"""What reaches a terminal: control characters of stored texts are shown, never obeyed.

Ids and titles are strangers' words. C0 characters are refused wherever they come in; C1 characters,
which many terminals take for the beginning of a command, and those that turn the direction of text
round may be stored since an earlier release, and stand in files and tables of the user's.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from recsys.text_rules import UNSEEN_CHARACTERS


class VisibleOutput:
    """A stream that writes such characters as \\uXXXX, as JSON has them; the rest is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(visible(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def visible(text: str) -> str:
    """
    >>> visible("tea\\x9b31m"), visible("plain")
    ('tea\\\\u009b31m', 'plain')
    """
    return UNSEEN_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def guard_terminal() -> None:
    """Let this process write to stdout and stderr visibly from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, VisibleOutput):
            setattr(sys, name, VisibleOutput(stream))
