"""Files of model versions where every instance reaches them: in the database, or in an object store.

A disk is then a cache, and an instance may start with an empty one. Nothing read from here is trusted:
the registry checks each file by its hash, and the manifest that lists the hashes by the one in the
version's row.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import delete, select

from recsys.config import Settings
from recsys.errors import ConfigError, MissingExtraError, ModelFileError, StorageUnavailableError
from recsys.storage.engine.database import Database, upsert
from recsys.storage.entities.version_rows import VERSION_NAME
from recsys.storage.schema.tables import model_files

PART_BYTES = 4 * 2**20  # of a row, and of what is in memory at once


class ModelFiles(Protocol):
    """Where files of versions are kept for all instances."""

    def put(self, version: str, path: Path) -> None:
        """Keep the file at `path` as one of `version`; repeating it changes nothing."""

    def get(self, version: str, name: str) -> Iterator[bytes]:
        """A file in parts. Raises ModelFileError where it is not there."""

    def delete(self, version: str) -> None:
        """Forget all files of `version`."""

    def sweep(self, registered: Collection[str], before_us: int) -> int:
        """Forget the versions that are not among `registered` and older than `before_us`; how many.

        What is not named as versions and their files are stays.
        """


class DatabaseFiles:
    """Files as rows of `model_files`, PART_BYTES each and each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, version: str, path: Path) -> None:
        with path.open("rb") as file:
            for number, content in enumerate(_parts(file)):
                row = {"version": version, "name": path.name, "part": number, "content": content}
                with self._database.begin() as connection:
                    statement = upsert(connection, model_files).values(
                        **row, created_at_us=time.time_ns() // 1_000
                    )
                    connection.execute(statement.on_conflict_do_nothing())

    def get(self, version: str, name: str) -> Iterator[bytes]:
        number = 0
        while True:
            one = select(model_files.c.content).where(
                model_files.c.version == version,
                model_files.c.name == name,
                model_files.c.part == number,
            )
            with self._database.connect() as connection:
                content = connection.execute(one).scalar()
            if content is None:
                break
            yield content
            number += 1
            if len(content) < PART_BYTES:
                break
        if number == 0:
            raise ModelFileError(f"version {version}: {name} is not in the database")

    def delete(self, version: str) -> None:
        with self._database.begin() as connection:
            connection.execute(delete(model_files).where(model_files.c.version == version))

    def sweep(self, registered: Collection[str], before_us: int) -> int:
        old = (
            select(model_files.c.version).distinct().where(model_files.c.created_at_us < before_us)
        )
        with self._database.connect() as connection:
            found = connection.execute(old).scalars().all()
        gone = [v for v in found if VERSION_NAME.fullmatch(v) and v not in registered]
        for version in gone:
            self.delete(version)
        return len(gone)


class ObjectFiles:
    """Files as objects `<prefix>/<version>/<name>` of a store that speaks S3's protocol.

    Address and credentials come from where its own tools take them (AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID, … or a profile).
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        """Raises MissingExtraError where the client is not installed."""
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise MissingExtraError("s3", "for registry.store = s3://…") from None
        self._errors = (BotoCoreError, ClientError)
        patience = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3})
        self._client: Any = boto3.client("s3", config=patience)
        self._bucket = bucket
        self._start = f"{prefix.strip('/')}/".lstrip("/")  # of every key

    def put(self, version: str, path: Path) -> None:
        try:
            self._client.upload_file(str(path), self._bucket, self._key(version, path.name))
        except Exception as error:  # boto3 has a kind of its own for uploads
            raise self._unavailable(error) from None

    def get(self, version: str, name: str) -> Iterator[bytes]:
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(version, name))
            yield from found["Body"].iter_chunks(PART_BYTES)
        except self._errors as error:
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            if code in ("NoSuchKey", "404"):
                raise ModelFileError(f"version {version}: {name} is not in the store") from None
            raise self._unavailable(error) from None

    def delete(self, version: str) -> None:
        self._delete([key for key, _ in self._listed(f"{version}/")])

    def sweep(self, registered: Collection[str], before_us: int) -> int:
        gone: dict[str, list[str]] = {}
        for key, written_us in self._listed(""):
            version, _, name = key.removeprefix(self._start).partition("/")
            ours = VERSION_NAME.fullmatch(version) and name and "/" not in name
            if ours and version not in registered and written_us < before_us:
                gone.setdefault(version, []).append(key)
        self._delete([key for keys in gone.values() for key in keys])
        return len(gone)

    def _key(self, version: str, name: str) -> str:
        return f"{self._start}{version}/{name}"

    def _listed(self, under: str) -> Iterator[tuple[str, int]]:
        """Keys and times (µs) of the objects whose names begin with `under`."""
        start = f"{self._start}{under}"
        try:
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=start):
                for one in page.get("Contents", []):
                    yield one["Key"], int(one["LastModified"].timestamp() * 1e6)
        except self._errors as error:
            raise self._unavailable(error) from None

    def _delete(self, keys: list[str]) -> None:
        try:
            for key in keys:
                self._client.delete_object(Bucket=self._bucket, Key=key)
        except self._errors as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"the model store cannot be reached or refused it ({type(error).__name__})"
        )


def open_model_files(settings: Settings, database: Database) -> ModelFiles | None:
    """Where `registry.store` says; None where the disk is all there is.

    Raises ConfigError, MissingExtraError.
    """
    store = settings.registry.store
    if store == "disk":
        return None
    if store == "database":
        return DatabaseFiles(database)
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError("registry.store", store, "expected: disk, database or s3://bucket/prefix")
    return ObjectFiles(bucket, prefix)


def _parts(file: Any) -> Iterable[bytes]:
    """Parts of PART_BYTES; the last is shorter, and may be empty."""
    while True:
        content = file.read(PART_BYTES)
        yield content
        if len(content) < PART_BYTES:
            return
