"""The words that docs/glossary.md rules out, for every check of texts."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "glossary.md"
HELD, _, TABLE = PAGE.read_text().partition("## Words to use")
RULED_OUT = {
    word.strip(): use
    for use, words in re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TABLE, re.M)
    if use not in ("use", "---")
    for word in words.split(";")
}
ANY = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, RULED_OUT))})(?![\w-])", re.IGNORECASE)
FILE_NAME = re.compile(r"[\w./-]+\.(?:md|py)\b")


def ruled_out(text: str) -> list[str]:
    """The words of `text` that are ruled out."""
    return ANY.findall(re.sub(r"\s+", " ", FILE_NAME.sub("", text)))
