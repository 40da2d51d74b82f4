"""One model version in memory: what serving ranks with, and training starts from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from recsys.events.array_types import Float32Array
from recsys.events.repeat_policy import RepeatPolicy
from recsys.events.vocabulary import Vocabulary
from recsys.models.blend import Blend
from recsys.models.content import ContentMap
from recsys.models.live_view import LiveMoment
from recsys.models.lstm.item_matrix import ItemMatrix
from recsys.models.lstm.network_scorer import NetworkScorer
from recsys.models.lstm.weights import Network
from recsys.models.ranker import Ranker
from recsys.models.version_facts import VersionFacts


@dataclass(frozen=True)
class Bundle:
    """One model version in memory."""

    version: str
    vocabulary: Vocabulary
    event_types: list[str]  # code 1.. in order; code 0 is missing
    network: Network | None
    rankers: Mapping[str, Ranker]
    repeats: RepeatPolicy
    ranking: str  # what is served: a blend's name or a ranker's
    max_length: int  # events of a history the network sees
    session_gap_seconds: float
    input_event_types: tuple[str, ...]  # empty = all
    facts: VersionFacts
    blends: Mapping[str, Blend] = field(default_factory=dict)  # the network, BLEND
    categories: list[str] = field(default_factory=list)  # code 1.. in order; code 0 is missing
    light: ItemMatrix | None = None  # the item table in int8, as the version's file holds it
    content: ContentMap | None = None  # item vectors from the catalogue
    matrix: ItemMatrix | None = None  # what the catalogue is scanned with, if not with the table
    live: LiveMoment | None = (
        None  # the live log at the moment of an answer, which adds to the rankers
    )

    @property
    def network_name(self) -> str | None:
        """The network's name as a ranking, a component and a source: its body."""
        return None if self.network is None else self.network.shape.body

    @cached_property
    def scorer(self) -> NetworkScorer | None:
        if self.network is None:
            return None
        return NetworkScorer(self.network, self.max_length, self.repeats, self.matrix)

    @cached_property
    def recent(self) -> Float32Array:
        """log(1 + users and sessions of the data's last days) of each row; (V,)."""
        ranker = self.rankers["popular_recent"]
        items, counts = ranker.votes(np.empty(0, np.int32))
        found = np.zeros(len(self.vocabulary), np.float32)
        found[items] = np.log1p(counts)
        return found

    @property
    def network_bytes(self) -> int:
        """What the network's weights take in memory."""
        if self.network is None:
            return 0
        return sum(array.nbytes for array in self.network.arrays().values())

    def with_live(self, moment: LiveMoment) -> Bundle:
        """The bundle at a moment of the live log, whose new items its vocabulary holds then.

        All that is worked out of the bundle once is shared with it.
        """
        _ = self.scorer, self.recent, self._components
        found = copy.copy(self)
        object.__setattr__(found, "vocabulary", moment.vocabulary)
        object.__setattr__(found, "live", moment)
        return found

    def component(self, name: str) -> Ranker:
        """A ranker as a component of a blend."""
        return self._components[name]

    @cached_property
    def _components(self) -> dict[str, Ranker]:
        return {name: ranker.as_component() for name, ranker in self.rankers.items()}


def compacted(bundle: Bundle, kind: str) -> Bundle:
    """`bundle` that scans its catalogue in a compact form (`recsys.models.lstm.item_matrix.KINDS`)."""
    if bundle.network is None or kind == "float32":
        return replace(bundle, matrix=None)
    light = bundle.light if kind == "int8" else None
    return replace(bundle, matrix=light or ItemMatrix.of(bundle.network, kind))
