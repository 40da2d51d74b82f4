"""A file of users' attributes -> chunks of checked users, and the rejected rows with their reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import orjson

from recsys.errors import InputError
from recsys.ingest.cells import CellRules, clean_text
from recsys.ingest.dialects import TextOptions
from recsys.ingest.layouts import listed, parse_map, require_columns
from recsys.ingest.raw_rows import Rejection, Row, plain
from recsys.ingest.row_files import open_rows, take_rows
from recsys.ingest.user_body import FIELD, UserAttributes, attributes_text, check_user


@dataclass(frozen=True)
class UserMap:
    """Source column names by what they hold.

    >>> UserMap.parse("user=UserId,attributes=Labels")
    UserMap(user='UserId', attributes='Labels')
    """

    user: str | None = None  # None: user_id
    attributes: str | None = None  # an object of them; None: `attributes`, where there is one

    @classmethod
    def parse(cls, text: str) -> UserMap:
        """The map written as `user=a,attributes=b`. Raises InputError naming what is wrong with it."""
        return cls(**parse_map(text, [entry.name for entry in fields(cls)]))


@dataclass(frozen=True)
class UserOptions:
    """Options for reading a file of users."""

    columns: UserMap = field(default_factory=UserMap)
    text: TextOptions = field(default_factory=TextOptions)  # how a text file is written
    cells: CellRules = field(default_factory=CellRules)


@dataclass(frozen=True)
class UserChunk:
    """Some rows of a file; the counts are of this chunk alone."""

    users: list[UserAttributes]  # in file order; a user may come more than once
    positions: list[int]  # of each of them, in the file
    rejections: list[Rejection]  # in file order
    read: int  # users + rejections


def read_users(
    path: str | Path, options: UserOptions, chunk_rows: int = 10_000
) -> Iterator[UserChunk]:
    """The users of a CSV, TSV, JSON or Parquet file, all but the last plain, .gz or .zst.

    Every column but the user's is an attribute of its name; those of an object are attributes too.
    Raises InputError at once where the file cannot be opened or a column that was named is not there;
    while reading, where the file is damaged.
    """
    source = open_rows(path, options.text, chunk_rows)
    user = options.columns.user or "user_id"
    held = options.columns.attributes or FIELD
    if source.names:  # a JSON file whose first lines are all bad has none
        if options.columns.user is None and user not in source.names:
            problem = f"say which column is the user; the file has {listed(source.names)}"
            raise InputError("--map", None, problem)
        named = [name for name in (options.columns.user, options.columns.attributes) if name]
        require_columns("--map", named, source.names)

    def chunks() -> Iterator[UserChunk]:
        for raw in source.chunks(source.names):
            done = take_rows(raw, lambda row: user_of(row, user, held, options.cells), [user])
            read = len(done.taken) + len(done.rejections)
            yield UserChunk(done.taken, done.positions, done.rejections, read)

    return chunks()


def user_of(
    row: Row,
    user: str = "user_id",
    held: str = FIELD,
    rules: CellRules = CellRules(),  # noqa: B008
) -> UserAttributes:
    """The attributes that a source row gives: those in the object of the column `held`, and every other
    column but that of the `user`. A cell that is empty gives null. Raises InputError.

    >>> user_of({"user_id": 7, "plan": "pro", "attributes": '{"age": 31}'}).attributes
    '{"age":31,"plan":"pro"}'
    """
    values = {}
    for name, value in row.items():
        value = plain(value)
        values[name] = clean_text(value, rules) if isinstance(value, str) else value
    user_id, objects = values.pop(user, None), values.pop(held, None)
    if isinstance(objects, str):
        objects = attributes_text(objects)
    if objects is not None and not isinstance(objects, Mapping):
        raise InputError(held, objects, "expected a JSON object")
    return check_user(user_id, {**(objects or {}), **values})


def written(user: UserAttributes) -> str:
    """A row of a file, as JSON text, that gives these attributes.

    >>> written(UserAttributes("7", '{"plan":"pro"}'))
    '{"user_id":"7","attributes":{"plan":"pro"}}'
    """
    row = {"user_id": user.user_id, "attributes": orjson.loads(user.attributes)}
    return orjson.dumps(row).decode()
