"""Holds the version that serves; swaps it atomically when another is promoted.

A version that cannot be loaded is refused: the one in memory goes on serving.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from recsys.errors import ModelFileError
from recsys.registry import Bundle, compacted, read_version

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Champion:
    """Which version should serve, as the deployments say."""

    version: str
    manifest_sha256: str


class ActiveModel:
    """The model of one process. `current` is called on the way of every request and is cheap."""

    def __init__(
        self,
        root: Path,
        reload_seconds: float,
        clock: Callable[[], float],
        matrix: str = "float32",
    ) -> None:
        """`clock` gives seconds that never go back, such as time.monotonic; `matrix` is how the
        item table is held (`recsys.model.item_matrix.KINDS`).
        """
        self._root = root
        self._matrix = matrix
        self._reload_seconds = reload_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None
        self._refused: str | None = None
        self._next_look = float("-inf")

    @property
    def bundle(self) -> Bundle | None:
        """What is in memory now."""
        return self._bundle

    @property
    def refused(self) -> str | None:
        """The version that should serve but was refused, if there is one."""
        return self._refused

    def current(self, champion: Callable[[], Champion | None]) -> Bundle | None:
        """The bundle to answer with; looks for a newer one every `reload_seconds`.

        `champion` reads the deployments. While one thread loads, the others go on with the old one.
        """
        if self._clock() >= self._next_look and self._lock.acquire(blocking=self._bundle is None):
            try:
                if self._clock() >= self._next_look:
                    self._look(champion())
                    self._next_look = self._clock() + self._reload_seconds
            finally:
                self._lock.release()
        return self._bundle

    def _look(self, champion: Champion | None) -> None:
        if champion is None:
            self._bundle, self._refused = None, None
            return
        if self._bundle is not None and self._bundle.version == champion.version:
            self._refused = None
            return
        try:
            bundle = compacted(
                read_version(self._root, champion.version, champion.manifest_sha256), self._matrix
            )
        except ModelFileError as error:
            if self._refused != champion.version:
                log.error("model refused", version=champion.version, reason=str(error))
            self._refused = champion.version
            return
        self._bundle, self._refused = bundle, None
        log.info("model loaded", version=champion.version, ranking=bundle.ranking)
