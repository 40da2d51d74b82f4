"""Meaning of a cell: blanks around it, words for a missing value, whole numbers written as floats.

One set of rules for every way in: delimited text, JSON, Parquet, external tables, REST, items. `clean`
takes a column, `clean_text` a single text; they agree.

Legend: n rows.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError
from recsys.ingest.arrow_columns import text_bytes

# Unicode's white space and what has no width at all: byte order marks, marks of direction.
BLANKS = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u200e\u200f\u2060\ufeff"
)
# As SQL, MySQL's and Hive's dumps, NumPy, pandas and Python write a missing value.
MISSING_WORDS = ("NULL", "null", r"\N", "NaN", "nan", "None", "<NA>")
# Words that may be ids all the same: kept, and told.
_DOUBTFUL = (
    *(
        "Null",
        "none",
        "NONE",
        "NAN",
        "Nan",
        "NA",
        "N/A",
        "n/a",
        "#N/A",
        "#NULL!",
        "(null)",
        "[NULL]",
    ),
    *("<null>", "nil", "undefined", "-", "?"),
)
_PADS = (" ", "\t", "\r", "\n", "  ", "\r\n")
# float64 tells whole numbers apart up to 2**53.
_WHOLE = re.compile(r"^(0|-?[1-9][0-9]{0,14})\.0+$", re.ASCII)
_LOST_DIGITS = r"^[+-]?[0-9](\.[0-9]+)?[eE]\+[0-9]{2,3}$"  # as spreadsheets and pandas write them
_SCIENTIFIC = re.compile(_LOST_DIGITS, re.ASCII)


@dataclass(frozen=True)
class CellRules:
    """How a text is taken: `missing` are the words that stand for no value, beside the empty text."""

    missing: tuple[str, ...] = MISSING_WORDS
    exact: bool = False  # as this project exports them: neither trimmed nor missing

    @classmethod
    def parse(cls, words: str) -> CellRules:
        r"""The rules whose missing words are `words`, separated by commas.

        >>> CellRules.parse(r"NULL,\N").missing
        ('NULL', '\\N')
        """
        missing = tuple(filter(None, (word.strip(BLANKS) for word in words.split(","))))
        if any(len(word) > 64 for word in missing):
            raise InputError("--null", words, "expected words of at most 64 characters, by commas")
        return cls(missing=missing)

    def doubtful(self) -> tuple[str, ...]:
        """Words that look missing and are not taken so."""
        return tuple(word for word in (*MISSING_WORDS, *_DOUBTFUL) if word not in self.missing)


def clean(
    texts: pa.Array, rules: CellRules, label: str, notes: Counter[str], ids: bool = False
) -> pa.Array:
    """`texts` (n,) trimmed, null where a word stands for a missing value; counted in `notes`.

    In columns of `ids`, words that look missing and are kept are counted as well.

    >>> found = Counter()
    >>> clean(pa.array([" a", "NULL"]), CellRules(), "user_id", found).to_pylist(), found
    (['a', None], Counter({"user_id 'NULL' taken as missing": 1}))
    """
    if rules.exact:
        return texts
    offsets, characters = text_bytes(texts)
    lengths = np.diff(offsets)
    filled = lengths > 0
    if not filled.any():
        return texts
    first, last = characters[offsets[:-1][filled]], characters[offsets[1:][filled] - 1]
    if ((first <= 32) | (first >= 0xC2) | (last <= 32) | (last >= 0x80)).any():
        texts = pc.utf8_trim(texts, characters=BLANKS)
        lengths = np.diff(text_bytes(texts)[0])
    words = (*rules.missing, *(rules.doubtful() if ids else ()))
    if not words or lengths.min() > max(len(word.encode()) for word in words):
        return texts
    places = pc.index_in(texts, pa.array(words, pa.string()))
    if places.null_count == len(places):
        return texts
    for found in pc.value_counts(places.drop_null()).to_pylist():
        word, rows = words[found["values"]], found["counts"]
        kept = found["values"] >= len(rules.missing)
        notes[doubt(label, word) if kept else taken(label, word)] += rows
    absent = pc.fill_null(pc.less(places, len(rules.missing)), False)
    return pc.if_else(absent, pa.scalar(None, pa.string()), texts)


def taken(label: str, word: str) -> str:
    return f"{label} {word!r} taken as missing"


def doubt(label: str, word: str) -> str:
    return f"{label} {word!r} looks like a missing value and was kept; --null names such words"


def clean_text(text: str, rules: CellRules = CellRules()) -> str | None:  # noqa: B008
    r"""`text` trimmed; None where it is empty or stands for a missing value.

    >>> clean_text(" a\u00a0"), clean_text("NULL"), clean_text("\\N")
    ('a', None, None)
    """
    if rules.exact:
        return text or None
    text = text.strip(BLANKS)
    return None if not text or text in rules.missing else text


def whole_text(text: str) -> str:
    """`text`, as the digits alone where it is a whole number written as a float.

    >>> whole_text("1001.0"), whole_text("1.5"), whole_text("007.0")
    ('1001', '1.5', '007.0')
    """
    found = _WHOLE.match(text) if text.endswith("0") else None
    return found[1] if found else text


def written_forms(text: str) -> list[str]:
    """Ways in which the id `text` may be written in a table that was filled from a file; not as it is.

    They are what an index is asked for: a blank or two, a tab or a line end before or after it, and the
    decimals of a number that was a float. The same cells hold for all databases and their encodings.

    >>> [form for form in written_forms("7") if len(form) == 2]
    [' 7', '7 ', '\\t7', '7\\t', '\\r7', '7\\r', '\\n7', '7\\n']
    """
    forms = [form for pad in _PADS for form in (pad + text, text + pad)]
    forms.append(f" {text} ")
    if _WHOLE.match(f"{text}.0"):
        forms.append(f"{text}.0")
    return forms


def whole_texts(texts: pa.Array) -> pa.Array:
    """`whole_text` of a column."""
    _, characters = text_bytes(texts)
    if not (characters == ord(".")).any():
        return texts
    return pc.replace_substring_regex(texts, _WHOLE.pattern, r"\1")


def lost_digits(text: str) -> bool:
    """Whether `text` is a number of which scientific notation has kept the first digits only.

    >>> lost_digits("1.59296E+12"), lost_digits("12e4"), lost_digits("1592960000000")
    (True, False, False)
    """
    return _SCIENTIFIC.match(text) is not None


def lost_digits_of(texts: pa.Array) -> pa.Array:
    """Which of `texts` (n,) have lost their digits: booleans without null."""
    _, characters = text_bytes(texts)
    if not (characters == ord("+")).any():
        return pa.array(np.zeros(len(texts), np.bool_))
    return pc.fill_null(pc.match_substring_regex(texts, _LOST_DIGITS), False)
