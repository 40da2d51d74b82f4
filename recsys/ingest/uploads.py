"""Files that come through a browser, from their first byte until they are imported: a folder each.

    uploads/<upload id>/upload.json      whose it is, how it is read, and the runs that were asked for
    uploads/<upload id>/data/<name>      the file, as far as it has arrived
    uploads/<upload id>/report.json      what the check of it found

The folder is shared by every process of the service and the scheduler, which does the work. An account
has one upload at a time; what is not imported within a day is deleted.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from recsys.config import Settings
from recsys.errors import ConflictError, InputError, NotFoundError
from recsys.events.times import DAY_US
from recsys.ingest.input_files import room
from recsys.text_rules import text_problem

PART_BYTES = 4 * 2**20  # of a file that come with one request
KEPT_US = DAY_US
MAX_NAME_BYTES = 200
MAX_ACCOUNTS = 1_000  # uploads there may be at a time, one of each account
_ID = re.compile(r"[0-9a-f]{32}")
_FACTS, _REPORT = "upload.json", "report.json"


@dataclass(frozen=True)
class Upload:
    """One file, as far as it has arrived."""

    upload_id: str
    account: str
    name: str  # as its owner calls it
    size: int  # bytes it will have
    created_at_us: int
    reading: Mapping[str, str] | None = None  # field of `ReadingForm` -> text; None: not chosen yet
    check_run: int | None = None
    import_run: int | None = None
    received: int = field(default=0, compare=False)  # bytes that are there

    @property
    def complete(self) -> bool:
        return self.received == self.size


class Uploads:
    """The uploads in a folder, which is made with the first of them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self.max_bytes = folder, max_bytes

    def begin(self, account: str, name: str, size: int, now_us: int) -> Upload:
        """Make room for a file; an earlier one of the account is deleted, as are all that are old.

        Raises InputError for a name that no file may have, a size that is none or too large, or one
        that the disk has no room for.
        """
        _check_name(name)
        if not 0 < size <= self.max_bytes:
            expected = f"expected 1 to {self.max_bytes:,} bytes (events.upload_mib)"
            raise InputError("size", size, expected)
        with self._alone():
            self.sweep(now_us)
            self._check_room(size)
            others = [one for one in self._all() if one.account != account]
            if len(others) >= MAX_ACCOUNTS:
                raise ConflictError("too many files wait to be imported; try again later")
            for one in self._all():
                if one.account == account:
                    self.delete(one)
            made = Upload(secrets.token_hex(16), account, name, size, now_us)
            self.file(made).parent.mkdir(parents=True, mode=0o700)
            self.file(made).touch(mode=0o600)
            self._write(made)
        return made

    def append(self, one: Upload, offset: int, part: bytes) -> Upload:
        """Write the next part, which begins at `offset`. Raises InputError where it does not fit on,
        ConflictError where the disk is full.
        """
        if not 0 < len(part) <= PART_BYTES:
            raise InputError("body", len(part), f"expected 1 to {PART_BYTES:,} bytes")
        with self.file(one).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two parts at once do not mix
            there = file.seek(0, 2)
            if offset != there or there + len(part) > one.size:
                raise InputError("offset", offset, f"expected {there}, of {one.size} bytes in all")
            self._check_room(len(part))
            file.write(part)
        return replace(one, received=there + len(part))

    def get(self, upload_id: str, account: str | None = None) -> Upload:
        """An upload, of `account` where that is given. Raises NotFoundError."""
        found = self._read(upload_id) if _ID.fullmatch(upload_id) else None
        if found is None or account not in (None, found.account):
            raise NotFoundError("upload", upload_id)
        return found

    def of_account(self, account: str) -> Upload | None:
        """The one that an account has."""
        return next((one for one in self._all() if one.account == account), None)

    def file(self, one: Upload) -> Path:
        return self._folder / one.upload_id / "data" / one.name

    def choose(self, one: Upload, reading: Mapping[str, str]) -> Upload:
        """Settle how it is read; what an earlier check found holds no longer where that changes."""
        if reading == one.reading:
            return one
        (self._folder / one.upload_id / _REPORT).unlink(missing_ok=True)
        return self._write(replace(one, reading=dict(reading), check_run=None))

    def note_check(self, one: Upload, run_id: int) -> Upload:
        return self._write(replace(one, check_run=run_id))

    def note_import(self, one: Upload, run_id: int) -> Upload:
        return self._write(replace(one, import_run=run_id))

    def keep_report(self, one: Upload, report: Mapping[str, Any]) -> None:
        _put(self._folder / one.upload_id / _REPORT, report)

    def report(self, one: Upload) -> dict[str, Any] | None:
        """What the check found; None before it has."""
        try:
            found: dict[str, Any] = orjson.loads(
                (self._folder / one.upload_id / _REPORT).read_bytes()
            )
        except FileNotFoundError:
            return None
        return found

    def spend(self, one: Upload) -> None:
        """Delete the file, which was imported, and keep what is told of it."""
        self.file(one).unlink(missing_ok=True)

    def delete(self, one: Upload) -> None:
        shutil.rmtree(self._folder / one.upload_id, ignore_errors=True)

    def sweep(self, now_us: int) -> int:
        """Delete what has lain here for a day; how many."""
        old = [one for one in self._all() if now_us - one.created_at_us > KEPT_US]
        for one in old:
            self.delete(one)
        return len(old)

    def _all(self) -> list[Upload]:
        if not self._folder.is_dir():
            return []
        found = (self._read(path.name) for path in self._folder.iterdir() if path.is_dir())
        return [one for one in found if one is not None]

    def _read(self, upload_id: str) -> Upload | None:
        try:
            facts = orjson.loads((self._folder / upload_id / _FACTS).read_bytes())
        except (FileNotFoundError, NotADirectoryError):  # not begun whole, or deleted meanwhile
            return None
        one = Upload(**facts)
        try:
            received = self.file(one).stat().st_size
        except FileNotFoundError:  # spent
            received = 0
        return replace(one, received=received)

    def _write(self, one: Upload) -> Upload:
        facts = {name: value for name, value in asdict(one).items() if name != "received"}
        _put(self._folder / one.upload_id / _FACTS, facts)
        return one

    def _check_room(self, size: int) -> None:
        if room(self._folder) < size:
            raise ConflictError("the disk of uploaded files (events.upload_path) has no room left")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time begins, so that no account has two."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def open_uploads(settings: Settings) -> Uploads:
    """The uploads of this service."""
    return Uploads(settings.events.upload_path, settings.events.upload_mib * 2**20)


def _put(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(f".{secrets.token_hex(4)}")
    part.write_bytes(orjson.dumps(facts))
    part.replace(path)


def _check_name(name: str) -> None:
    problem = text_problem(name, MAX_NAME_BYTES)
    if problem is None and (len(name.encode()) > MAX_NAME_BYTES):
        problem = f"expected at most {MAX_NAME_BYTES} bytes"
    if problem is None and (name.startswith(".") or "/" in name or "\\" in name):
        problem = "expected the name of a file, without a folder"
    if problem is not None:
        raise InputError("name", name, problem)
