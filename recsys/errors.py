"""Every error this project raises on purpose.

    RecsysError                     anything a user can be told in one line
    ├── ConfigError                 a key in config.toml or the environment
    ├── InputError                  a value a user handed in: names the field and the value
    ├── NotFoundError               no such user, item, version, run, file
    ├── ConflictError               the state of things forbids it
    ├── AuthenticationError         no key, or an unknown one
    ├── AccessError                 a key without the scope
    ├── RateLimitError              too many requests: try again later
    ├── StorageUnavailableError     database locked, absent or full: try again
    │   └── SourceUnavailableError  the same of an external table's database
    │       └── SourceDataError     which is there, but cannot convert a value
    ├── NotEnoughDataError          too little to train or evaluate on
    ├── DataCheckError              the data is not as it should be before a training
    ├── LostLeaseError              another scheduler leads: this run may not publish
    ├── TrainingError               the loss is not finite, a worker died
    ├── SequenceFileError           sequence files damaged or of another database: built anew
    ├── ModelFileError              a model file damaged, foreign or of an unknown format
    ├── BackupError                 a backup damaged, foreign or of a newer release
    └── MissingExtraError           an optional part is not installed: says which

Messages are written for the person who reads them. They never hold a traceback, SQL, a secret,
or, once they leave over HTTP, a path (`recsys.web.problem_details` is the one translator).
"""

import difflib
import reprlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

LISTED = 12  # known words that a message names


class RecsysError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one readable line."""


class ConfigError(RecsysError):
    """A configuration key is unknown or its value is not what was expected."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        self.key, self.value, self.expected = key, value, expected
        super().__init__(f"{key} = {shown(value)}: {expected}")


class InputError(RecsysError):
    """A value handed in is not acceptable; `field` and `value` say which."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        self.field, self.value, self.expected = field, value, expected
        super().__init__(f"{field} = {shown(value)}: {expected}")


@contextmanager
def within(path: str) -> Iterator[None]:
    """Name the fields of an InputError as parts of what stands at `path`.

    >>> with within("arms[1].settings"):
    ...     raise InputError("k", 0, "expected 1")
    Traceback (most recent call last):
    recsys.errors.InputError: arms[1].settings.k = 0: expected 1
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}.{error.field}", error.value, error.expected) from None


def unknown(field: str, value: str, expected: str, known: Sequence[str]) -> InputError:
    """The InputError of a word that means nothing: the nearest known ones first, then the others.

    >>> str(unknown("filter", "prise", "a field", ["title", "price"]))
    "filter = 'prise': expected a field; nearest: price; known: title, price"
    """
    near = difflib.get_close_matches(value, known, 3, 0.6)
    if not near:
        near = [name for name in known if name.lower() == value.lower()]
    parts = [f"expected {expected}"]
    parts += [f"nearest: {', '.join(near)}"] if near else []
    more = ", …" if len(known) > LISTED else ""
    parts += [f"known: {', '.join(known[:LISTED])}{more}" if known else "there is none"]
    return InputError(field, value, "; ".join(parts))


def nearly(value: str, known: Collection[str]) -> str | None:
    """The one of `known` that `value` may be a slip of the pen for, or None.

    >>> nearly("pruchase", ["cart", "purchase"]), nearly("View", ["view"]), nearly("rating", ["view"])
    ('purchase', 'view', None)
    """
    folded = {one.casefold(): one for one in sorted(known)}
    found = difflib.get_close_matches(value.casefold(), list(folded), 1, 0.75)
    return folded[found[0]] if found else None


class NotFoundError(RecsysError):
    """What was asked for does not exist."""

    def __init__(self, kind: str, name: object) -> None:
        self.kind, self.name = kind, name
        super().__init__(f"no {kind} {shown(name)}")


class ConflictError(RecsysError):
    """The present state forbids the request."""


class AuthenticationError(RecsysError):
    """No key was given, or one that is unknown or revoked."""


class AccessError(RecsysError):
    """The key is known but lacks the scope."""


class RateLimitError(RecsysError):
    """The caller has used up its requests for now."""

    def __init__(self, retry_after_seconds: float) -> None:
        self.retry_after_seconds = max(1, round(retry_after_seconds + 0.5))
        super().__init__("too many requests")


class StorageUnavailableError(RecsysError):
    """The database cannot be reached or is locked; the same request may succeed later."""

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class SourceUnavailableError(StorageUnavailableError):
    """The database of the external table cannot be read now."""


class SourceDataError(SourceUnavailableError):
    """A value of the external table cannot be converted; its database is not away for that."""


class NotEnoughDataError(RecsysError):
    """There is too little data for what was asked."""


class DataCheckError(RecsysError):
    """A check before training failed; the message says which, with its figure and its limit."""


class LostLeaseError(RecsysError):
    """Another scheduler or consumer has taken over, so what this one would write is refused."""


class TrainingError(RecsysError):
    """Training could not be completed; nothing was published."""


class SequenceFileError(RecsysError):
    """Sequence files are missing, damaged or of another database; they are built anew."""


class ModelFileError(RecsysError):
    """A model file is missing, damaged, foreign or of a format this release does not know."""


class BackupError(RecsysError):
    """A backup is damaged, foreign or of a newer release; the message names it and the part."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the backup {shown(name)} {reason}")


class MissingExtraError(RecsysError):
    """An optional part is not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"the extra '{extra}' is needed {purpose}: pip install 'recsys[{extra}]'")


_brief = reprlib.Repr()  # of lists and objects: however deep and long they are
_brief.maxother = _brief.maxlong = 200


def shown(value: object, limit: int = 80) -> str:
    """`value` as it may stand in a message: quoted, printable, at most `limit` characters, of which
    the last ones stay: they tell paths and ids apart.

    >>> shown("a\\nb")
    "'a\\\\nb'"
    >>> len(shown("x" * 1000))
    80
    """
    text = repr(value) if isinstance(value, str) else _brief.repr(value)
    tail = limit // 2
    return text if len(text) <= limit else f"{text[: limit - tail - 1]}…{text[-tail:]}"
