"""The versions that serve, champion and control: loaded, swapped when others are deployed, chosen.

A version that cannot be loaded is refused: the one in memory goes on serving.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import structlog

from recsys.errors import ModelFileError, RecsysError, StorageUnavailableError
from recsys.events.sequences import Histories
from recsys.events.vocabulary import FIRST_ITEM
from recsys.models.blend import TRENDING_US
from recsys.models.bundle import Bundle, compacted
from recsys.models.live_log import NOWHERE, LiveLog
from recsys.models.live_view import LiveView
from recsys.models.rankers import BLENDABLE
from recsys.models.ranking import best, votes_of
from recsys.registry import read_version
from recsys.storage.entities.model_files import ModelFiles

log = structlog.get_logger(__name__)
CHAMPION, CONTROL = "champion", "control"
EXPERIMENT = "experiment"  # answers that an experiment changes: in the report of that one alone
PAGE = "page"  # the champion's answers to pages: in no comparison, since anyone can have them made
REFUSED_LOOKS = 10  # after how many looks a refused version is read again


class Deployed(NamedTuple):
    """A version that should serve, as the deployments say."""

    version: str
    manifest_sha256: str


class Models(NamedTuple):
    """What answers: everyone by the champion, the control's share of users by the one before it."""

    champion: Bundle | None = None
    control: Bundle | None = None
    arms: Mapping[str, Bundle] = MappingProxyType({})  # by version: those of experiments' arms


class ChosenModel(NamedTuple):
    """The model that answers a request, and the arm that it is."""

    bundle: Bundle | None
    arm: str | None  # CHAMPION, CONTROL, EXPERIMENT or PAGE; None without a model


# The champion and then the one it replaced; either may be missing.
Look = Callable[[], Sequence[tuple[str, str]]]


class ActiveModel:
    """The models of one process. `current` is called on the way of every request and is cheap."""

    def __init__(
        self,
        root: Path,
        reload_seconds: float,
        clock: Callable[[], float],
        matrix: str = "float32",
        *,
        control: bool = False,
        files: ModelFiles | None = None,
        arms: Look = tuple,
    ) -> None:
        """`clock` gives seconds that never go back, such as time.monotonic; `matrix` is how the
        catalogue is scanned (`recsys.models.lstm.item_matrix.KINDS`); with `control` the champion before
        the present one is held too, and those that `arms` names. What is not in the folder `root` is
        fetched from `files`.
        """
        self._root = root
        self._files = files
        self._matrix = matrix
        self._control = control
        self._arms = arms
        self._reload_seconds = reload_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._models = Models()
        self._refused: str | None = None
        self._failed: dict[str, float] = {}  # versions not loaded, and when they are tried again
        self._next_look = float("-inf")
        self._followed = False

    @property
    def models(self) -> Models:
        """What is in memory now."""
        return self._models

    @property
    def refused(self) -> str | None:
        """The version that should serve but was refused, if there is one."""
        return self._refused

    def read(self, wanted: Deployed) -> Bundle:
        """A version that need not be deployed: the one in memory, or read for this caller alone.

        Raises ModelFileError, StorageUnavailableError.
        """
        models = self._models
        for bundle in (models.champion, models.control, *models.arms.values()):
            if bundle is not None and bundle.version == wanted.version:
                return bundle
        return self._read(wanted)

    def current(self, look: Look) -> Models:
        """The models to answer with; looks for newer ones every `reload_seconds`.

        While one thread loads, the others go on with the old ones. Where `follow` runs, that one
        loads and nobody waits.
        """
        if self._followed:
            return self._models
        waiting = self._models.champion is None
        if self._clock() >= self._next_look and self._lock.acquire(blocking=waiting):
            try:
                if self._clock() >= self._next_look:
                    self._take(look())
                    self._next_look = self._clock() + self._reload_seconds
            finally:
                self._lock.release()
        return self._models

    def follow(
        self, look: Look, stop: threading.Event, changed: Callable[[], None] = lambda: None
    ) -> None:
        """Look every `reload_seconds` until `stop` is set; for a thread of its own.

        `changed` is called after other models have taken over.
        """
        self._followed = True
        while not stop.wait(self._reload_seconds):
            try:
                before = self._models
                with self._lock:
                    self._take(look())
                if self._models is not before:
                    changed()
            except RecsysError as error:
                log.warning("deployments cannot be read", reason=str(error))
            except Exception:
                log.exception("looking for a new version failed")

    def _take(self, names: Sequence[tuple[str, str]]) -> None:
        wanted = [Deployed(*name) for name in names]
        of_arms = [Deployed(*name) for name in self._arms()]
        names_wanted = {one.version for one in (*wanted, *of_arms)}
        self._failed = {one: at for one, at in self._failed.items() if one in names_wanted}
        if not wanted:
            self._models, self._refused = Models(), None
            return
        before = self._models
        held = {
            bundle.version: bundle
            for bundle in (before.champion, before.control, *before.arms.values())
            if bundle is not None
        }

        def found(one: Deployed) -> Bundle | None:
            bundle = held.get(one.version) or self._load(one)
            if bundle is not None:
                held[one.version] = bundle
            return bundle

        champion = found(wanted[0])
        self._refused = None if champion is not None else wanted[0].version
        # A process that has just begun holds none; it serves what a roll back would.
        champion = champion or before.champion or next(filter(None, map(found, wanted[1:])), None)
        control = found(wanted[1]) if self._control and len(wanted) > 1 else None
        if control is champion:
            control = None
        arms = {one.version: bundle for one in of_arms if (bundle := found(one)) is not None}
        if (champion, control, arms) != before:
            # One assignment, so that a request sees all old or all new.
            self._models = Models(champion, control, arms)

    def _load(self, wanted: Deployed) -> Bundle | None:
        """The version, ready to answer; None where it is refused or was a moment ago."""
        known = self._failed.get(wanted.version)
        if known is not None and self._clock() < known:
            return None
        try:
            bundle = self._read(wanted)
            warm(bundle)
        except (ModelFileError, StorageUnavailableError) as error:
            if known is None:
                log.error("model refused", version=wanted.version, reason=str(error))
            looks = REFUSED_LOOKS if isinstance(error, ModelFileError) else 0
            self._failed[wanted.version] = self._clock() + looks * self._reload_seconds
            return None
        self._failed.pop(wanted.version, None)
        log.info("model loaded", version=wanted.version, ranking=bundle.ranking)
        return bundle

    def _read(self, wanted: Deployed) -> Bundle:
        found = read_version(self._root, wanted.version, wanted.manifest_sha256, self._files)
        return compacted(found, self._matrix)


def warm(bundle: Bundle) -> None:
    """Rank once without a live log and once with one, so that the first request does not pay for what is
    built or compiled on first use.
    """
    known = list(range(FIRST_ITEM, min(FIRST_ITEM + 5, len(bundle.vocabulary))))
    history = Histories.from_lists([known])
    best(bundle, history, 10)
    names = [bundle.vocabulary.item_id(row) for row in known]
    log = LiveLog(bundle.session_gap_seconds, 2 * len(names) + 2).append(
        [1] * len(names), names, np.arange(len(names)) + 1, np.zeros(len(names), np.uint64)
    )
    view = LiveView.of(bundle, 0)
    view.catch_up(log)
    live = bundle.with_live(view.moment((), NOWHERE, 1))
    votes_of(live, history[0], [*BLENDABLE, *TRENDING_US])
    best(live, history, 10)


def choose_model(
    models: Models, asker: str | None, control_share: float, key: Callable[[], bytes | None]
) -> ChosenModel:
    """The model for `asker`, a user or session; `control_share` of all get the control, 0..1.

    `key`: the installation's, asked for where there is a control; None where it cannot be had.
    """
    if models.champion is None:
        return ChosenModel(None, None)
    if models.control is not None and asker is not None:
        secret = key()
        if secret is not None and in_control(asker, control_share, secret):
            return ChosenModel(models.control, CONTROL)
    return ChosenModel(models.champion, CHAMPION)


def in_control(asker: str, share: float, key: bytes) -> bool:
    """Whether a user or session is in the control arm: the same ones at every call.

    By a keyed hash, so that nobody outside can tell who is, or choose an id that is.

    >>> in_control("u1", 0.0, b"secret"), in_control("u1", 1.0, b"secret")
    (False, True)
    """
    digest = hmac.digest(key, f"control {asker}".encode(), "sha256")
    return int.from_bytes(digest[:8], "big") < share * 2**64
